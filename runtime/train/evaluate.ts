/** Loss and metrics over a whole data set. */
import type { EvalManifest } from '../../passes/targets/manifest.js';
import { fail } from '../../src/errors.js';
import type { Batch, Collator } from '../data/batch.js';
import type { Dataset } from '../data/dataset.js';
import type { Tensors } from '../session.js';
import type { EvalResult } from './events.js';
import type { Measured } from './measured.js';
import { naming } from './naming.js';

/** What runs an eval graph: the stepper of a training run, or the driver of an eval graph alone. */
export interface EvalDriver {
  readonly manifest: Pick<EvalManifest, 'loss'>;
  /** Loss and metrics of one batch, whose buffers are given away. */
  evaluate(feeds: Tensors): Promise<Measured>;
  /** Combines measurements of batches into one over all of them. */
  combine(parts: readonly Measured[]): Measured;
}

export interface EvaluateDatasetOptions {
  readonly batchSize: number;
  readonly signal?: AbortSignal | undefined;
  /** Called after every batch. */
  readonly onBatch?: (batch: Pick<Batch, 'examples' | 'tokens'>) => void;
}

/**
 * Evaluates without dropout, in file order. An incomplete last batch is filled up or, where that cannot be, left out.
 * Undefined when the signal was given before the end.
 */
export async function evaluateDataset(
  driver: EvalDriver,
  dataset: Dataset,
  collator: Collator,
  { batchSize, signal, onBatch }: EvaluateDatasetOptions,
): Promise<EvalResult | undefined> {
  const parts: Measured[] = [];
  let examples = 0;
  for (let start = 0; start < dataset.length; start += batchSize) {
    if (signal?.aborted === true) return undefined;
    const end = Math.min(start + batchSize, dataset.length);
    const complete = end - start === (collator.batchSize ?? end - start);
    if (!complete && !collator.canFill) break;
    const batch = collator.batch(Array.from({ length: end - start }, (_, i) => dataset.example(start + i)));
    parts.push(await naming(batch.where, () => driver.evaluate(batch.feeds)));
    examples += batch.examples;
    onBatch?.(batch);
  }
  if (parts.length === 0)
    fail('E_INVALID_DATA', {
      message: `${dataset.length} examples do not fill one evaluation batch of ${batchSize}`,
      where: dataset.source,
      remedy: 'Give more examples, or export the model with a dynamic batch axis.',
    });
  const { loss, weight, metrics } = driver.combine(parts);
  return {
    loss,
    ...(driver.manifest.loss.perplexity ? { perplexity: Math.exp(loss) } : {}),
    metrics,
    weight,
    examples,
  };
}
