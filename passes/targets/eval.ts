/** The eval graph: the model without dropout and gradients, with the same parameter inputs and the same loss. */
import { cloneModel } from '../../src/clone.js';
import type { Value } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import type { AdapterParam } from '../adapter-record.js';
import { stripDropout } from '../dropout.js';
import type { ConfiguredLoss } from '../losses/loss.js';
import { normalizeForTraining } from '../normalize/index.js';
import { raiseOpsetPass } from '../normalize/raise-opset.js';
import { mixPrecision } from '../precision/mix.js';
import { ofLoss, type PrecisionOptions } from '../precision/options.js';
import { runPasses } from '../runner.js';
import { finish, lossOutputs } from './finish.js';
import type { FixedNames } from './layout.js';
import type { StepManifest } from './manifest.js';
import type { PublicNames } from './names.js';
import { addObjective, type LabelNames, type PlacedLabel } from './objective.js';
import { liftTrainables } from './trainables.js';

export interface EvalOptions {
  readonly loss: ConfiguredLoss;
  readonly names: PublicNames;
  readonly labelNames: LabelNames;
  readonly fixed: Pick<FixedNames, 'loss' | 'weight'>;
  /** Names of the loss's metrics; claimed where the graph is emitted alone. */
  readonly metrics?: readonly string[];
  readonly outputs: 'loss' | 'all';
  /** Absent: the dtypes of the model. */
  readonly precision?: PrecisionOptions;
}

export interface EvalGraph {
  readonly model: Model;
  /** Outputs of the adapted model that the graph has, under their own names. */
  readonly outputs: readonly { readonly name: string; readonly value: Value }[];
  readonly labels: readonly PlacedLabel[];
  readonly metrics: StepManifest['outputs']['metrics'];
}

/** Opset of the newest operator that a loss computes with. */
const LOSS_OPSET = 11;

/**
 * `params` become inputs; parameters that are not trained, all tensors of a model without an adapter among them, stay
 * weights. The model keeps its ops: nothing is lowered, but in mixed precision, where the nodes are those of the training
 * graph and read the same weights.
 */
export function emitEval(adapted: Model, params: readonly AdapterParam[], options: EvalOptions): EvalGraph {
  const { model } = cloneModel(adapted);
  inferModel(model);
  liftTrainables(model, params);
  stripDropout(model);
  // Losses are written in operators that the oldest models lack.
  if (options.precision !== undefined) runPasses(model, normalizeForTraining);
  else if (model.opset() < LOSS_OPSET) runPasses(model, [raiseOpsetPass]);
  const objective = addObjective(model, options.loss, options.names, options.labelNames);
  const built = objective.built.metrics ?? [];
  const metrics = options.metrics ?? built.map(({ name }) => options.names.claim(name));
  const wanted = model.graph.outputs.flatMap(({ name, value }) =>
    name !== undefined && (options.outputs === 'all' || objective.outputs.includes(name))
      ? [{ name, value }]
      : [],
  );
  const { precision } = options;
  const values = wanted.map(({ value }) => value);
  const given =
    precision === undefined ? values : mixPrecision(model, values, { ...precision, stays: ofLoss });
  const outputs = wanted.map(({ name }, i) => ({ name, value: given[i]! }));
  const b = new Builder(model, { provenance: 'eval' });
  finish(
    model,
    b,
    [],
    [
      ...lossOutputs(objective, options.fixed, metrics),
      ...outputs.map(({ name, value }) => [name, value] as const),
    ],
  );
  return {
    model,
    outputs,
    labels: objective.labels,
    metrics: built.map(({ reduce, perWeight }, i) => ({ name: metrics[i]!, reduce, perWeight })),
  };
}
