/** Insertion with what it has to read of the base's weights: its digest, surveys, and initial values derived from them. */
import {
  applyInsert,
  entriesOf,
  type InsertOptions,
  type InsertReport,
  mayOpen,
  openFor,
} from '../../passes/insert/insert.js';
import { planInsert } from '../../passes/insert/plan.js';
import type { Model } from '../../src/model.js';
import { sortTopologically } from '../../src/order.js';
import { deriveValues } from '../derive/derive.js';
import { surveyed } from '../derive/survey.js';
import { digestWeights } from '../digest.js';

/**
 * Inserts methods into a model, in place. Until it is trained, the model computes what it computed before, unless the
 * method says that it starts elsewhere. Reads every weight once for the digest, unless `baseDigest` is given.
 * @throws E_NO_MATCH when a target matches nothing, E_USAGE for a configuration that does not fit the method,
 * E_UNSUPPORTED when the model holds an adapter already.
 */
export async function insert(model: Model, options: InsertOptions): Promise<InsertReport> {
  sortTopologically(model.graph);
  // Taken apart, fused operators leave constants that the base does not have.
  const before = mayOpen(model, options) ? await digestOf(model, options) : undefined;
  const opened = openFor(model, options);
  const plan = await surveyed(planInsert(model, entriesOf(options), options));
  const derived = await deriveValues(plan, options.seed ?? 0);
  const baseDigest = before ?? (await digestOf(model, options));
  return { ...applyInsert(model, plan, derived, { ...options, baseDigest }), opened };
}

async function digestOf(model: Model, { baseDigest }: InsertOptions): Promise<string> {
  return baseDigest ?? (await digestWeights(model));
}
