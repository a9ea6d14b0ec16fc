/** ONNX files: lossless decoding with payload handles, byte-exact re-encoding, streaming atomic saves. */
export { decodeModel, readModel } from './decode.js';
export { encodeModel } from './encode.js';
export { inheritOrigin } from './origin.js';
