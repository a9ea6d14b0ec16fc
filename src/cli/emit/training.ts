/** What the training targets share: the loss they need. */
import { LOSSES } from '../../../passes/losses/index.js';
import type { StepOptions } from '../../../passes/targets/step.js';
import { fail } from '../../errors.js';
import { type StepFlags, stepOptions } from '../step-options.js';
import type { CommonFlags, Emission } from './common.js';

/** Options of the training graphs, for a provider where one is known. Throws E_USAGE without `--loss`. */
export function trainingOptions(
  { flags, methods, path }: Omit<Emission<CommonFlags & StepFlags>, 'model'>,
  ep?: string,
): StepOptions {
  const { loss } = flags;
  if (loss === undefined)
    return fail('E_USAGE', {
      message: `The ${flags.target} target needs --loss`,
      where: path,
      remedy: `One of ${[...LOSSES.keys()].join(', ')}`,
    });
  return stepOptions({ ...flags, loss }, methods, ep);
}
