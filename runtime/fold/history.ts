/** What was folded into a model already, as its metadata say, and whether an adapter may follow. */
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import type { AdapterFile } from '../adapter-file.js';

/** Metadata of merged models: the chain of folds, as JSON. */
export const FOLDED_METADATA_KEY = 'peft_compile.folded';

export interface FoldRecord {
  readonly adapter: string;
  /** Digest of the base's weights, where the adapter is bound to one. */
  readonly base?: string;
  readonly method: string;
  readonly version: 1;
}

/** @throws E_INVALID_DATA for an adapter that was folded before, or was trained on other weights. */
export function checkBase(
  base: Model,
  digest: string | undefined,
  adapter: AdapterFile,
  history: readonly FoldRecord[],
): void {
  const where = base.path === undefined ? {} : { where: base.path };
  if (history.some((record) => record.adapter === adapter.digest))
    fail('E_INVALID_DATA', {
      message: 'This adapter is folded into the model already',
      ...where,
      remedy: 'Fold into the base model, or pass --any-base to add it once more',
    });
  if (adapter.record.base !== undefined && adapter.record.base !== digest)
    fail('E_INVALID_DATA', {
      message: 'The adapter was trained on a model with other weights',
      ...where,
      remedy: 'Pass the base model of the training run, or --any-base to fold all the same',
    });
}

export function foldHistory(model: Model): FoldRecord[] {
  const text = model.metadata.get(FOLDED_METADATA_KEY);
  if (text === undefined) return [];
  try {
    const parsed: unknown = JSON.parse(text);
    return Array.isArray(parsed) ? (parsed as FoldRecord[]) : [];
  } catch {
    return [];
  }
}
