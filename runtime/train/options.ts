/** What a training run is asked for, and its defaults. */
import type { Method } from '../../passes/methods/contract/method.js';
import type { StepManifest } from '../../passes/targets/manifest.js';
import { fail } from '../../src/errors.js';
import type { TrainArtifacts } from '../artifacts.js';
import type { CollateOptions } from '../data/batch.js';
import type { Dataset } from '../data/dataset.js';
import type { HostTensor } from '../host-tensor.js';
import type { SessionOptions } from '../session.js';
import type { DataLoadOptions } from './batches.js';
import type { EvalResult, StopReason, TrainListener } from './events.js';
import type { ScheduleConfig } from './schedule.js';

export interface TrainOptions {
  /** Artifacts in memory, or the folder `emit --target step` wrote. */
  readonly artifacts: TrainArtifacts | string;
  /** Data, or the path of a data file. */
  readonly data: Dataset | string;
  /** Data to evaluate on; a share of `data` with `validation`; none otherwise. */
  readonly evalData?: Dataset | string;
  /** Share of `data` held out for evaluation when there is no `evalData`, e.g. 0.1. */
  readonly validation?: number;
  /** How data files are read; texts need a tokenizer. */
  readonly load?: DataLoadOptions;
  readonly collate?: CollateOptions;
  /** Methods of one's own that the adapter's record names, where they act between steps. */
  readonly methods?: readonly Method[];
  /** Folder for the adapter, the log and the checkpoints. */
  readonly out: string;
  /** Replace the results of an earlier run in `out`. */
  readonly force?: boolean;
  /** Passes over the data. Default 1, or what `maxSteps` takes. */
  readonly epochs?: number;
  /** Optimizer steps; ends the run before `epochs` does. */
  readonly maxSteps?: number;
  /** Examples per micro-batch. Default: what the graphs fix, or 8. */
  readonly batchSize?: number;
  readonly evalBatchSize?: number;
  /** Default true. */
  readonly shuffle?: boolean;
  /** Leave out examples that do not fill a batch. Default: only when the graphs cannot take a smaller one. */
  readonly dropLast?: boolean;
  /** Seeds data order, split and dropout. Default 0. */
  readonly seed?: number;
  /** Overrides the manifest's schedule. */
  readonly schedule?: Partial<ScheduleConfig>;
  /** Steps between evaluations; there is always one at the end when there is data for it. */
  readonly evalEvery?: number;
  /** Evaluate before the first step too. */
  readonly evalFirst?: boolean;
  /** Stop after this many evaluations without a better loss. */
  readonly patience?: number;
  /** Steps between checkpoints; an interrupted run always leaves one. */
  readonly checkpointEvery?: number;
  /** Newest checkpoints to keep. Default 2; the best one is kept besides. */
  readonly keepCheckpoints?: number;
  /** Continue: `true` from the newest checkpoint in `out`, or from a file. */
  readonly resume?: boolean | string;
  /** Write the parameters of the best evaluation instead of the last ones. */
  readonly restoreBest?: boolean;
  /** First values of the parameters instead of the artifacts' own. */
  readonly initial?: ReadonlyMap<string, HostTensor>;
  readonly session?: SessionOptions;
  readonly onEvent?: TrainListener;
  /** Ends the run after the step under way, with a checkpoint. */
  readonly signal?: AbortSignal;
}

export interface TrainResult {
  readonly reason: StopReason;
  /** Optimizer steps done, those before a resume included. */
  readonly steps: number;
  /** Loss of every step of this process, in order. */
  readonly losses: readonly number[];
  readonly evals: readonly (EvalResult & { readonly step: number })[];
  /** Written at the end of a run, not of an interrupted one. */
  readonly adapter: string | undefined;
  /** Newest checkpoint, if any was written. */
  readonly checkpoint: string | undefined;
  readonly log: string;
  /** Elements that were trained. */
  readonly trainable: number;
  /** Elements of the adapter file: training-only structure is gone, frozen tensors are there. */
  readonly stored: number;
  readonly seconds: number;
  readonly params: ReadonlyMap<string, HostTensor>;
  /** Names of the classes by label, where labels were given as text. */
  readonly classes?: readonly string[];
}

/** @throws E_USAGE naming the option that is no whole number in its range. */
export function checkOptions(options: TrainOptions): void {
  const { batchSize, evalBatchSize, maxSteps, patience, keepCheckpoints, evalEvery, checkpointEvery } =
    options;
  const positive = { batchSize, evalBatchSize, maxSteps, patience, keepCheckpoints };
  const counts = { evalEvery, checkpointEvery };
  const whole = { seed: options.seed };
  for (const [group, least] of [
    [positive, 1],
    [counts, 0],
    [whole, Number.MIN_SAFE_INTEGER],
  ] as const)
    for (const [name, value] of Object.entries(group))
      if (value !== undefined && !(Number.isSafeInteger(value) && value >= least))
        fail('E_USAGE', {
          message: `${name} is ${value}`,
          remedy: `Give a whole number${least < 0 ? '' : ` from ${least}`}.`,
        });
  const rate = options.schedule?.learningRate;
  if (rate !== undefined && !(Number.isFinite(rate) && rate >= 0))
    fail('E_USAGE', { message: `The learning rate is ${rate}`, remedy: 'Give a number from 0.' });
}

/** Steps of a run. */
export function totalSteps(options: TrainOptions, manifest: StepManifest, stepsPerEpoch: number): number {
  const { epochs, maxSteps } = options;
  for (const [name, value] of Object.entries({ epochs, maxSteps }))
    if (value !== undefined && !(value > 0))
      fail('E_USAGE', { message: `${name} is ${value}`, remedy: 'Give a number above 0.' });
  const byEpochs = epochs === undefined ? undefined : Math.ceil(epochs * stepsPerEpoch);
  return maxSteps === undefined
    ? (byEpochs ?? manifest.schedule.totalSteps ?? stepsPerEpoch)
    : Math.min(maxSteps, byEpochs ?? maxSteps);
}

export function scheduleOf(options: TrainOptions, manifest: StepManifest, steps: number): ScheduleConfig {
  const { id, learningRate, warmupSteps, totalSteps: planned } = manifest.schedule;
  return { id, learningRate, warmupSteps, totalSteps: planned ?? steps, ...options.schedule };
}
