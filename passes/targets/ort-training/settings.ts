/** Options of the ort-training target, checked and filled in. */
import { fail } from '../../../src/errors.js';
import type { AdapterParam, AdapterRecord } from '../../adapter-record.js';
import { lossById } from '../../losses/index.js';
import type { ConfiguredLoss } from '../../losses/loss.js';
import type { Method } from '../../methods/contract/method.js';
import { optimizerById } from '../../optimizers/index.js';
import type { ConfiguredOptimizer } from '../../optimizers/optimizer.js';
import { parseOptions } from '../../options.js';
import { proceduresOf } from '../../procedures.js';
import { type Schedule, scheduleSchema } from '../manifest.js';
import { SEED_LIMIT } from './dropout-seed.js';
import { type NativeOptimizer, nativeOptimizer, type ParameterSettings } from './optimizers.js';
import type { OrtTrainingOptions } from './options.js';

export interface Settings {
  readonly loss: ConfiguredLoss;
  readonly optimizer: ConfiguredOptimizer;
  readonly native: NativeOptimizer;
  readonly accumulation: number;
  readonly maxNorm: number | null;
  readonly dropout: number | undefined;
  readonly seed: number;
  readonly schedule: Schedule;
}

/** Throws E_USAGE for values out of range, E_UNSUPPORTED for an optimizer that the runtime does not have. */
export function settle(options: OrtTrainingOptions): Settings {
  const loss = typeof options.loss === 'string' ? lossById(options.loss) : options.loss;
  const chosen = options.optimizer ?? 'adamw';
  const optimizer = (typeof chosen === 'string' ? optimizerById(chosen) : chosen).configure(
    options.optimizerConfig,
  );
  const native = nativeOptimizer(optimizer.id);
  const { accumulation = 1, clip = null, dropout, seed = 0, lossScale } = options;
  check(
    'accumulation',
    accumulation,
    Number.isSafeInteger(accumulation) && accumulation >= 1,
    'a whole number from 1',
  );
  check('clip', clip, clip === null || (Number.isFinite(clip) && clip > 0), 'a norm above 0');
  check('lossScale', lossScale, lossScale === undefined || lossScale > 0, 'a fixed factor above 0');
  check(
    'dropout',
    dropout,
    dropout === undefined || (dropout >= 0 && dropout < 1),
    'a probability in [0, 1)',
  );
  check(
    'seed',
    seed,
    Number.isSafeInteger(seed) && seed >= 0 && seed < SEED_LIMIT,
    `a whole number below ${SEED_LIMIT}`,
  );
  return {
    loss: loss.configure(options.lossConfig),
    optimizer,
    native,
    accumulation,
    maxNorm: clip,
    dropout,
    seed,
    schedule: parseOptions(
      scheduleSchema,
      options.schedule ?? { id: 'constant', learningRate: 1e-3 },
      'schedule',
    ).config,
  };
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
  const known = new Set(params.map(({ group }) => group));
  const unknown = Object.keys(groups).find((name) => !known.has(name));
  if (unknown !== undefined)
    fail('E_NO_MATCH', {
      message: `No trained parameter is in group '${unknown}'`,
      remedy: `There are: ${[...known].join(', ')}`,
    });
  return params.map(({ key, group, weightDecay, lrScale }) => ({
    key,
    weightDecay: groups[group]?.weightDecay ?? weightDecay,
    lrScale: (groups[group]?.lrScale ?? 1) * lrScale,
  }));
}

function check(what: string, value: unknown, fits: boolean, wanted: string): void {
  if (!fits) fail('E_USAGE', { message: `${what} is ${String(value)}`, remedy: `Give ${wanted}` });
}
