/** The optimizers that ship. One of your own is passed to `emitStep` as an object. */
import { fail } from '../../src/errors.js';
import { adamw } from './adamw.js';
import type { Optimizer } from './optimizer.js';
import { sgd } from './sgd.js';

export {
  type ConfiguredOptimizer,
  defineOptimizer,
  type Optimizer,
  type OptimizerDefinition,
  type StateSlot,
  type TensorUpdate,
  type UpdatedTensor,
} from './optimizer.js';

export const OPTIMIZERS: ReadonlyMap<string, Optimizer> = new Map([adamw, sgd].map((o) => [o.id, o]));

/** An optimizer by id. Throws E_USAGE with the known ids. */
export function optimizerById(id: string): Optimizer {
  return (
    OPTIMIZERS.get(id) ??
    fail('E_USAGE', {
      message: `There is no optimizer '${id}'`,
      remedy: `Use one of: ${[...OPTIMIZERS.keys()].join(', ')}`,
    })
  );
}
