/** The part that the `step` and `grad` graphs share: forward pass with live dropout, loss, gradients of the adapter. */

import { cloneModel } from '../../src/clone.js';
import { fail } from '../../src/errors.js';
import { Value } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { tensorType } from '../../src/types.js';
import type { AdapterParam, AdapterRecord } from '../adapter-record.js';
import { adapterDropouts, lowerDropout, probabilityOf } from '../dropout.js';
import type { Gradient } from '../grad/rule.js';
import type { ConfiguredLoss } from '../losses/loss.js';
import type { Method } from '../methods/contract/method.js';
import { normalizeForTraining } from '../normalize/index.js';
import type { Pass } from '../pass.js';
import { mixPrecision } from '../precision/mix.js';
import { ofLoss, type PrecisionOptions } from '../precision/options.js';
import { recompute } from '../recompute/recompute.js';
import { runPasses } from '../runner.js';
import type { PublicNames } from './names.js';
import { addObjective, differentiate, type LabelNames, type Objective } from './objective.js';
import { addPenalty } from './penalty.js';
import { liftTrainables } from './trainables.js';

export interface TrainGraphOptions {
  readonly record: AdapterRecord;
  /** Methods of one's own that the record may name. */
  readonly methods: readonly Method[];
  readonly loss: ConfiguredLoss;
  readonly names: PublicNames;
  readonly labelNames: LabelNames;
  /** Divide the gradients by the weight of the batch. */
  readonly mean: boolean;
  readonly seedName: string;
  readonly dropout: number | undefined;
  readonly lossScale: number | 'dynamic' | undefined;
  /** Name of the input for a dynamic scale. Without one the default is a fixed scale. */
  readonly lossScaleName?: string;
  /** Absent: the dtypes of the model. */
  readonly precision?: PrecisionOptions;
  /** Compute activations twice, in so many groups at most; true for as many as need least memory. Default false. */
  readonly recompute?: boolean | number;
  readonly gradientRules: readonly Gradient[];
  readonly lowerings: readonly Pass[];
}

export interface TrainGraph {
  readonly model: Model;
  readonly objective: Objective;
  /** Parameters the loss depends on, in record order, with their graph inputs and gradients. */
  readonly trained: readonly {
    readonly param: AdapterParam;
    readonly input: Value;
    readonly gradient: Value;
  }[];
  /** Parameters the loss does not depend on. */
  readonly untrained: readonly AdapterParam[];
  /** Largest dropout probability in force. */
  readonly dropout: number;
  /** Whether the loss scale is an input. */
  readonly dynamicScale: boolean;
}

/** Means over a few thousand tokens stay above the smallest float16, sums over them far below the largest. */
const FLOAT16_LOSS_SCALE = 256;

/** Builds on a copy: the adapted model stays as it is. Throws E_NO_MATCH when no parameter reaches the loss. */
export function buildTrainGraph(
  adapted: Model,
  params: readonly AdapterParam[],
  options: TrainGraphOptions,
): TrainGraph {
  const { model } = cloneModel(adapted);
  inferModel(model);
  const lifted = liftTrainables(model, params);
  const dropouts = adapterDropouts(model).map((node) => options.dropout ?? probabilityOf(node));
  const dropout = Math.max(0, ...dropouts);
  const seed = new Value({ name: options.seedName, type: tensorType('int32', []) });
  lowerDropout(model, seed, options.dropout);
  if (dropout > 0) model.graph.addInput(seed);
  const penalty = addPenalty(model, options.record, lifted, options.methods);
  // An output while the graph is normalised: passes keep what is behind it.
  const slot = penalty === undefined ? undefined : model.graph.addOutput(undefined, penalty);
  runPasses(model, [...options.lowerings, ...normalizeForTraining]);
  if (slot !== undefined) {
    slot.release();
    model.graph.outputs.splice(model.graph.outputs.indexOf(slot), 1);
  }
  const objective = addObjective(model, options.loss, options.names, options.labelNames, slot?.value);
  const half = (options.precision?.dtype ?? objective.modelDtype) === 'float16';
  const usual = options.lossScaleName === undefined ? FLOAT16_LOSS_SCALE : 'dynamic';
  const asked = options.lossScale ?? (half ? usual : 1);
  const lossScale =
    asked === 'dynamic'
      ? new Value({ name: options.lossScaleName ?? 'loss_scale', type: tensorType('float32', []) })
      : asked;
  if (lossScale instanceof Value) model.graph.addInput(lossScale);
  const inputs = lifted.map(({ input }) => input);
  const forward = [...model.graph.nodes()];
  const gradients = differentiate(model, objective, inputs, {
    mean: options.mean,
    lossScale,
    rules: options.gradientRules,
  });
  const groups = options.recompute ?? false;
  if (groups !== false) recompute(model, forward, inputs, groups === true ? {} : { groups });
  const known = [...gradients.keys()];
  if (options.precision !== undefined) {
    const found = mixPrecision(model, [...gradients.values()], {
      ...options.precision,
      stays: ofLoss,
      forward: new Set(forward),
    });
    for (const [i, value] of known.entries()) gradients.set(value, found[i]!);
  }
  const trained: { param: AdapterParam; input: Value; gradient: Value }[] = [];
  const untrained: AdapterParam[] = [];
  for (const { param, input } of lifted) {
    const gradient = gradients.get(input);
    if (gradient === undefined) untrained.push(param);
    else trained.push({ param, input, gradient });
  }
  if (trained.length === 0)
    fail('E_NO_MATCH', {
      message: 'The loss depends on no trainable parameter',
      where: `loss ${options.loss.id} on '${objective.outputs.join("', '")}'`,
      remedy: 'Name another output for the loss, or adapt other sites',
    });
  return {
    model,
    objective,
    trained,
    untrained,
    dropout,
    dynamicScale: lossScale instanceof Value,
  };
}
