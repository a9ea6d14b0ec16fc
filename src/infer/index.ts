/** Types of values: by rule for one node, or for a whole model. */
export { constantOf, intsOf, symbolicIntsOf } from './contents.js';
export { inferModel, inferNode } from './engine.js';
export type { Diagnostic } from './merge.js';
export { retype } from './retype.js';
