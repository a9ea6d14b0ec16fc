/** Where methods attach. */
export { type FindOptions, findSites, findWeightSites } from './find.js';
export { constantIntegers, payloadOf } from './payload.js';
export type * from './site.js';
