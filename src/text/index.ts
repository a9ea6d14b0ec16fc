/** The text form of models: ONNX textual syntax. */
export { type ParseOptions, parseGraph, parseModel, parseValueType } from './parse.js';
export { NOT_IN_TEXT } from './payload.js';
export { type PrintOptions, printGraph, printModel, printNodes } from './print.js';
export { typeText } from './spelling.js';
