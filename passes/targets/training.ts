/** What the training targets have in common: the options that all of them take, and the graphs made of these. */
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import {
  type AdapterParam,
  type AdapterRecord,
  readAdapterRecord,
  trainableParams,
} from '../adapter-record.js';
import { configuredLoss } from '../losses/index.js';
import type { ConfiguredLoss } from '../losses/loss.js';
import { fixInputs, type InputSettings } from '../normalize/fixed-inputs.js';
import { optimizerById } from '../optimizers/index.js';
import type { ConfiguredOptimizer } from '../optimizers/optimizer.js';
import { parseOptions } from '../options.js';
import { type EvalGraph, type EvalOptions, emitEval } from './eval.js';
import { claimFixedNames, type FixedNames } from './layout.js';
import { type Schedule, scheduleSchema } from './manifest.js';
import { PublicNames } from './names.js';
import type { LabelNames } from './objective.js';
import type { GroupOptions, StepOptions } from './options.js';
import { buildTrainGraph, type TrainGraph, type TrainGraphOptions } from './train-graph.js';

/** Options of every training target. */
export type TrainingOptions = Pick<
  StepOptions,
  | 'loss'
  | 'lossConfig'
  | 'methods'
  | 'optimizer'
  | 'optimizerConfig'
  | 'schedule'
  | 'clip'
  | 'accumulation'
  | 'groups'
  | 'dropout'
  | 'recompute'
  | 'inputs'
  | 'gradientRules'
  | 'lowerings'
  | 'evalOutputs'
>;

type GraphSettings = Pick<
  TrainGraphOptions,
  'methods' | 'loss' | 'dropout' | 'recompute' | 'gradientRules' | 'lowerings'
>;

/** The options, checked and filled in. */
export interface TrainingSettings extends GraphSettings {
  readonly loss: ConfiguredLoss;
  readonly optimizer: ConfiguredOptimizer;
  readonly schedule: Schedule;
  readonly accumulation: number;
  /** Null for no clipping. */
  readonly maxNorm: number | null;
  readonly recompute: boolean | number;
  readonly evalOutputs: EvalOptions['outputs'];
}

/** Throws E_USAGE for values out of range, E_NO_MATCH for a loss or optimizer that does not exist. */
export function settleTraining(options: TrainingOptions): TrainingSettings {
  const { optimizer = 'adamw', clip = null, accumulation = 1, recompute = false } = options;
  const chosen = typeof optimizer === 'string' ? optimizerById(optimizer) : optimizer;
  return {
    methods: options.methods ?? [],
    loss: configuredLoss(options.loss, options.lossConfig),
    optimizer: chosen.configure(options.optimizerConfig),
    accumulation: checkCount('accumulation', accumulation),
    maxNorm: checkRange('clip', clip, (norm) => norm > 0, 'a norm above 0'),
    dropout: checkRange('dropout', options.dropout, (p) => p >= 0 && p < 1, 'a probability in [0, 1)'),
    schedule: parseOptions(
      scheduleSchema,
      options.schedule ?? { id: 'constant', learningRate: 1e-3 },
      'schedule',
    ).config,
    recompute: typeof recompute === 'boolean' ? recompute : checkCount('recompute', recompute),
    gradientRules: options.gradientRules ?? [],
    lowerings: options.lowerings ?? [],
    evalOutputs: options.evalOutputs ?? 'loss',
  };
}

/** A model that is emitted, and the names that its graphs share. */
export interface Training {
  readonly record: AdapterRecord;
  /** With inputs fixed that training settles once for all. */
  readonly adapted: Model;
  readonly names: PublicNames;
  readonly fixed: FixedNames;
  readonly labelNames: LabelNames;
}

/** Throws E_NO_MATCH for a model without an adapter. `reserved` are names that nothing else may have. */
export function openTraining(
  model: Model,
  inputs: InputSettings | undefined,
  reserved: readonly string[] = [],
): Training {
  const record = readAdapterRecord(model);
  const adapted = fixInputs(model, inputs);
  const names = new PublicNames(adapted);
  for (const name of reserved) names.reserve(name);
  return { record, adapted, names, fixed: claimFixedNames(names), labelNames: new Map() };
}

/** Forward and backward pass, and the names of the loss's metrics. Throws E_NO_MATCH, E_NO_GRADIENT. */
export function trainingGraph(
  { record, adapted, names, fixed, labelNames }: Training,
  { methods, loss, dropout, recompute, gradientRules, lowerings }: TrainingSettings,
  own: Pick<TrainGraphOptions, 'mean' | 'lossScale' | 'lossScaleName' | 'precision'>,
): { readonly train: TrainGraph; readonly metrics: readonly string[] } {
  const train = buildTrainGraph(adapted, trainableParams(record), {
    record,
    names,
    labelNames,
    seedName: fixed.seed,
    methods,
    loss,
    dropout,
    recompute,
    gradientRules,
    lowerings,
    ...own,
  });
  return { train, metrics: (train.objective.built.metrics ?? []).map(({ name }) => names.claim(name)) };
}

/** The eval graph of the same training. */
export function evaluationGraph(
  { adapted, names, fixed, labelNames }: Training,
  { loss, evalOutputs }: TrainingSettings,
  trained: readonly AdapterParam[],
  own: Pick<EvalOptions, 'metrics' | 'precision'>,
): EvalGraph {
  return emitEval(adapted, trained, { loss, names, labelNames, fixed, outputs: evalOutputs, ...own });
}

/** Throws E_NO_MATCH for settings of a group that no parameter is in. */
export function checkGroups(
  groups: Readonly<Record<string, GroupOptions>>,
  params: readonly AdapterParam[],
): Readonly<Record<string, GroupOptions>> {
  const known = new Set(params.map(({ group }) => group));
  for (const name of Object.keys(groups))
    if (!known.has(name))
      fail('E_NO_MATCH', {
        message: `No trained parameter is in group '${name}'`,
        remedy: `There are: ${[...known].join(', ')}`,
      });
  return groups;
}

export function checkCount(what: string, count: number): number {
  if (Number.isSafeInteger(count) && count >= 1) return count;
  return fail('E_USAGE', { message: `${what} is ${count}`, remedy: 'Give a whole number from 1' });
}

/** Throws E_USAGE for a number that is not what the option takes; absent passes. */
export function checkRange<T extends number | null | undefined>(
  what: string,
  value: T,
  fits: (value: number) => boolean,
  wanted: string,
): T {
  if (value === null || value === undefined || (Number.isFinite(value) && fits(value))) return value;
  return fail('E_USAGE', { message: `${what} is ${value}`, remedy: `Give ${wanted}` });
}

/** Names an emitted graph for people who open it. */
export function label(model: Model, name: string): void {
  model.graph.name = name;
  model.producerName = 'peft-compile';
  model.producerVersion = '';
}
