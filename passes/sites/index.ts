/** Where methods attach. */
export { type FindOptions, findSites } from './find.js';
export { constantIntegers, payloadOf } from './payload.js';
export type * from './site.js';
