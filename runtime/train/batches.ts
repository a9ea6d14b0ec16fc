/** From data files to batches, for whatever drives emitted graphs. */
import type { EvalManifest } from '../../passes/targets/manifest.js';
import { fail } from '../../src/errors.js';
import { type CollateOptions, Collator, checkDataset } from '../data/batch.js';
import type { Dataset } from '../data/dataset.js';
import { type LoadOptions, loadDataset } from '../data/load.js';
import { loadTokenizer, type TextTokenizer } from '../data/tokenizer.js';
import { providerOf } from '../ep/index.js';
import type { SessionOptions } from '../session.js';
import { fixSizes, longestExample } from './fixed-sizes.js';

/** How data files are read; texts need a tokenizer. */
export type DataLoadOptions = Omit<LoadOptions, 'batch' | 'loss'>;

/** Examples per batch where nothing says otherwise. */
export const DEFAULT_BATCH = 8;

type Manifest = Pick<EvalManifest, 'batch' | 'loss'>;

export interface OpenData {
  /** Data as it is, or the file of that path; `classes` names those of text labels. */
  open(data: Dataset | string, classes?: readonly string[]): Promise<Dataset>;
  /** The tokenizer's padding token. */
  readonly padId: number | undefined;
}

/** Reads data for the graphs of a manifest. @throws E_IO, E_INVALID_DATA for a tokenizer that does not load. */
export function dataFor(manifest: Manifest, load: DataLoadOptions = {}): OpenData {
  const { tokenizer: given, ...rest } = load;
  const tokenizer: TextTokenizer | undefined = typeof given === 'string' ? loadTokenizer(given) : given;
  const options: LoadOptions = {
    ...rest,
    ...(tokenizer === undefined ? {} : { tokenizer }),
    batch: manifest.batch,
    loss: manifest.loss.id,
  };
  return {
    open: async (data, classes) =>
      typeof data === 'string'
        ? loadDataset(data, { ...options, ...(classes === undefined ? {} : { classes }) })
        : data,
    padId: tokenizer?.padId,
  };
}

export interface BatchOptions {
  readonly collate?: CollateOptions | undefined;
  /** The tokenizer's padding token, where `collate` names none. */
  readonly padId?: number | undefined;
  /** Examples per batch; default: what the graphs fix, or 8. */
  readonly batchSize?: number | undefined;
  readonly ep?: SessionOptions['ep'];
}

/**
 * A collator for all of the data, which is checked against the inputs of the graphs. Sizes are settled where the provider
 * compiles a graph per size.
 * @throws E_INVALID_DATA for examples that do not fit, E_USAGE for a batch size that the graphs do not take.
 */
export function batchesFor(
  { batch: specs }: Manifest,
  data: readonly Dataset[],
  { collate, padId, batchSize: asked, ep }: BatchOptions,
): { readonly collator: Collator; readonly batchSize: number } {
  const options = { ...(padId === undefined ? {} : { padId }), ...collate };
  const free = new Collator(specs, options);
  const settled = providerOf(ep).needs?.fixedSizes === true;
  const collator = settled
    ? new Collator(
        fixSizes(specs, {
          rows: free.canFill ? (asked ?? DEFAULT_BATCH) : undefined,
          length: collate?.length ?? longestExample(free, data),
        }),
        options,
      )
    : free;
  for (const one of data) checkDataset(one, collator);
  const batchSize = asked ?? collator.batchSize ?? DEFAULT_BATCH;
  if (collator.batchSize !== undefined && batchSize !== collator.batchSize)
    fail('E_USAGE', {
      message: `The graphs take batches of ${collator.batchSize}, a batch size of ${batchSize} was asked for`,
      remedy: `Use --batch-size ${collator.batchSize}, or export the model with a dynamic batch axis.`,
    });
  return { collator, batchSize };
}
