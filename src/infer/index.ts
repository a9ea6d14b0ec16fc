/** Types of values: by rule for one node, or for a whole model. */
export { constantOf, intsOf, symbolicIntsOf } from './contents.js';
export { type Diagnostic, inferModel, inferNode } from './engine.js';
