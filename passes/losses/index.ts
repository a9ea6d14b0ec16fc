/** The losses that ship. One of your own is passed to `emitStep` as an object. */
import { fail } from '../../src/errors.js';
import { bceWithLogits } from './bce-with-logits.js';
import { causalLm } from './causal-lm.js';
import { classification } from './classification.js';
import { ctc } from './ctc.js';
import type { ConfiguredLoss, Loss } from './loss.js';
import { mse } from './mse.js';
import { output } from './output.js';

export {
  type BuiltLoss,
  type ConfiguredLoss,
  defineLoss,
  type LabelInput,
  type Loss,
  type LossContext,
  type LossDefinition,
  type LossMetric,
} from './loss.js';

export const LOSSES: ReadonlyMap<string, Loss> = new Map(
  [causalLm, classification, mse, bceWithLogits, ctc, output].map((loss) => [loss.id, loss]),
);

/** A loss by id. Throws E_USAGE with the known ids. */
export function lossById(id: string): Loss {
  return (
    LOSSES.get(id) ??
    fail('E_USAGE', {
      message: `There is no loss '${id}'`,
      remedy: `Use one of: ${[...LOSSES.keys()].join(', ')}`,
    })
  );
}

/** A loss, by id or as an object, with its settings. Throws E_USAGE for an id that there is not, and settings that do not fit. */
export function configuredLoss(loss: string | Loss, config?: unknown): ConfiguredLoss {
  return (typeof loss === 'string' ? lossById(loss) : loss).configure(config);
}
