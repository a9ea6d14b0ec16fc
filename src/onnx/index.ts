/** ONNX files: lossless decoding with payload handles, byte-exact re-encoding, streaming atomic saves. */
export { atomicWrite, cleanupPending, type Sink } from './atomic.js';
export { decodeModel, readModel } from './decode.js';
export { encodeModel } from './encode.js';
export { inheritOrigin } from './origin.js';
export { ExternalData, FileData, readAside, readPayload } from './payload.js';
export type { ExternalMode } from './placement.js';
export { isSameFile, type WriteOptions, type WriteReport, type WrittenFile, writeModel } from './write.js';
