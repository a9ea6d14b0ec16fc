/** ONNX files: lossless decoding with payload handles, byte-exact re-encoding, streaming atomic saves. */
export { atomicWrite, cleanupPending, type Sink } from './atomic.js';
export { decodeModel, readModel } from './decode.js';
export { encodeModel } from './encode.js';
export { inheritOrigin } from './origin.js';
export { ExternalData, FileData, readPayload } from './payload.js';
export type { ExternalMode } from './placement.js';
export { type WriteOptions, type WriteReport, type WrittenFile, writeModel } from './write.js';
