/** Learning-rate schedules as formulas over the number of the step, the same values as the host computes. */
import { fail } from '../../../src/errors.js';
import type { Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { Schedule } from '../manifest.js';

/** Factor after warm-up from what is left of the run, 1 at the end of warm-up and 0 after the last step. */
const DECAYS: ReadonlyMap<string, ((op: Ops, left: Value) => Value) | undefined> = new Map([
  ['constant', undefined],
  ['linear', (_op: Ops, left: Value) => left],
  // (1 + cos(π(1 − left)))/2 = sin²(π·left/2), which does not cancel near the end.
  [
    'cosine',
    (op: Ops, left: Value) => {
      const root = op.Sin(op.Mul(left, Math.PI / 2));
      return op.Mul(root, root);
    },
  ],
]);

/**
 * Factor on the peak rate, shaped like `step`; undefined where it is always 1. `step` counts from 1, float32: whole
 * numbers are exact up to 2²⁴ of them.
 * Throws E_USAGE for a schedule without a formula, and where it does not say how long the run is.
 */
export function scheduleFactor(op: Ops, step: Value, schedule: Schedule): Value | undefined {
  const { id, warmupSteps, totalSteps } = schedule;
  if (!DECAYS.has(id))
    fail('E_USAGE', {
      message: `There is no schedule '${id}' in the optimizer model`,
      remedy: `Use one of: ${[...DECAYS.keys()].join(', ')}`,
    });
  const decay = DECAYS.get(id);
  const done = op.Sub(step, 1);
  const decayed = decay === undefined ? undefined : decay(op, left(op, done, warmupSteps, totalSteps, id));
  if (warmupSteps === 0) return decayed;
  const rising = op.Div(done, warmupSteps);
  // Division of a whole number by a larger one is below 1.
  return decayed === undefined ? op.Min([rising, 1]) : op.Where(op.Less(done, warmupSteps), rising, decayed);
}

function left(op: Ops, done: Value, warmup: number, total: number | null, id: string): Value {
  if (total === null)
    return fail('E_USAGE', {
      message: `The schedule '${id}' needs the number of optimizer steps of the run`,
      remedy: 'Give totalSteps (--steps), or use the constant schedule',
    });
  return op.Div(op.Max([op.Sub(total, done), 0]), Math.max(1, total - warmup));
}
