/** Insertion with the digest of the base in its record, so that a later fold refuses other weights. */
import { type InsertOptions, type InsertReport, insert as insertAdapter } from '../../passes/insert.js';
import type { Model } from '../../src/model.js';
import { digestWeights } from '../digest.js';

/**
 * Inserts a method into a model, in place. Until it is trained, the model computes what it computed before.
 * Reads every weight once for the digest, unless `baseDigest` is given.
 * @throws E_NO_MATCH when a target matches nothing, E_USAGE for a configuration that does not fit the method,
 * E_UNSUPPORTED when the model holds an adapter already.
 */
export async function insert(model: Model, options: InsertOptions): Promise<InsertReport> {
  return insertAdapter(model, {
    ...options,
    baseDigest: options.baseDigest ?? (await digestWeights(model)),
  });
}
