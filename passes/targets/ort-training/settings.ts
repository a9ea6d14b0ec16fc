/** Options of the ort-training target, checked and filled in. */
import { fail } from '../../../src/errors.js';
import type { AdapterParam, AdapterRecord } from '../../adapter-record.js';
import type { Method } from '../../methods/contract/method.js';
import { proceduresOf } from '../../procedures.js';
import { checkGroups, checkRange, settleTraining, type TrainingSettings } from '../training.js';
import { SEED_LIMIT } from './dropout-seed.js';
import { type NativeOptimizer, nativeOptimizer, type ParameterSettings } from './optimizers.js';
import type { OrtTrainingOptions } from './options.js';

export interface Settings extends TrainingSettings {
  readonly native: NativeOptimizer;
  readonly lossScale: number | undefined;
  readonly seed: number;
}

/** Throws E_USAGE for values out of range, E_UNSUPPORTED for an optimizer that the runtime does not have. */
export function settle(options: OrtTrainingOptions): Settings {
  const settings = settleTraining(options);
  const native = nativeOptimizer(settings.optimizer.id);
  const { seed = 0, lossScale } = options;
  checkRange('lossScale', lossScale, (scale) => scale > 0, 'a fixed factor above 0');
  checkRange(
    'seed',
    seed,
    (value) => Number.isSafeInteger(value) && value >= 0 && value < SEED_LIMIT,
    `a whole number below ${SEED_LIMIT}`,
  );
  return { ...settings, native, lossScale, seed };
}

/** Throws E_UNSUPPORTED where a method has work to do between steps: nothing of ours runs there. */
export function checkProcedures(record: AdapterRecord, methods: readonly Method[]): void {
  const [first] = proceduresOf(record, methods);
  if (first === undefined) return;
  const { method } = record.entries[first.entry]!;
  fail('E_UNSUPPORTED', {
    message: `The method '${method}' changes parameters between steps, which ONNX Runtime Training cannot do`,
    remedy: 'Train it with peft-compile train, or with the step target and a driver that runs its procedure',
  });
}

/** Rate and decay of every parameter. Throws E_NO_MATCH for settings of a group that no parameter is in. */
export function parameterSettings(
  params: readonly AdapterParam[],
  groups: NonNullable<OrtTrainingOptions['groups']>,
): ParameterSettings[] {
  checkGroups(groups, params);
  return params.map(({ key, group, weightDecay, lrScale }) => ({
    key,
    weightDecay: groups[group]?.weightDecay ?? weightDecay,
    lrScale: (groups[group]?.lrScale ?? 1) * lrScale,
  }));
}
