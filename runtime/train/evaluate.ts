/** Loss and metrics over a whole data set. */
import { fail } from '../../src/errors.js';
import type { Collator } from '../data/batch.js';
import type { Dataset } from '../data/dataset.js';
import type { EvalResult } from './events.js';
import { naming } from './naming.js';
import type { Measured, Stepper } from './stepper.js';

/**
 * Evaluates without dropout, in file order. An incomplete last batch is filled up or, where that cannot be, left out.
 * Undefined when the signal was given before the end.
 */
export async function evaluate(
  stepper: Stepper,
  dataset: Dataset,
  collator: Collator,
  batchSize: number,
  signal?: AbortSignal,
): Promise<EvalResult | undefined> {
  const parts: Measured[] = [];
  let examples = 0;
  for (let start = 0; start < dataset.length; start += batchSize) {
    if (signal?.aborted === true) return undefined;
    const end = Math.min(start + batchSize, dataset.length);
    const complete = end - start === (collator.batchSize ?? end - start);
    if (!complete && !collator.canFill) break;
    const batch = collator.batch(Array.from({ length: end - start }, (_, i) => dataset.example(start + i)));
    parts.push(await naming(batch.where, () => stepper.evaluate(batch.feeds)));
    examples += batch.examples;
  }
  if (parts.length === 0)
    fail('E_INVALID_DATA', {
      message: `${dataset.length} examples do not fill one evaluation batch of ${batchSize}`,
      where: dataset.source,
      remedy: 'Hold out more examples, or export the model with a dynamic batch axis.',
    });
  const { loss, weight, metrics } = stepper.combine(parts);
  return {
    loss,
    ...(stepper.manifest.loss.perplexity ? { perplexity: Math.exp(loss) } : {}),
    metrics,
    weight,
    examples,
  };
}
