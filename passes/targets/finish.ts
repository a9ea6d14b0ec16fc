/** The tails of the training graphs: `step` updates parameters, `grad` adds up gradients, `update` is an update alone. */
import { Graph, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, tensorType } from '../../src/types.js';
import { applyEdit } from '../edit.js';
import { castTo } from '../losses/loss.js';
import type { ConfiguredOptimizer } from '../optimizers/optimizer.js';
import { gatherBucket, scatterBucket } from './buckets.js';
import type { FixedNames, Layout } from './layout.js';
import type { CarriedTensor } from './manifest.js';
import type { Objective } from './objective.js';
import { pruneGraph } from './prune.js';
import type { TrainGraph } from './train-graph.js';
import { buildUpdate } from './update.js';

export interface UpdateSettings {
  readonly layout: Layout;
  readonly fixed: FixedNames;
  readonly optimizer: ConfiguredOptimizer;
  readonly maxNorm: number | null;
}

type NamedOutputs = [string, Value][];

/** Appends clipping and optimizer to a train graph whose gradients are means. */
export function finishStep(train: TrainGraph, settings: UpdateSettings, metrics: readonly string[]): Model {
  const { model } = train;
  const b = new Builder(model, { provenance: 'update' });
  const gradients = train.trained.map(({ gradient }) => gradient);
  const { inputs, outputs } = update(b, settings, {
    params: train.trained.map(({ input }) => input),
    gradients: settings.layout.buckets.map((bucket) => gatherBucket(b.op, bucket, gradients)),
  });
  const perParam: NamedOutputs = settings.layout.params.flatMap(({ gradient }, i) =>
    gradient === undefined ? [] : [[gradient, gradients[i]!]],
  );
  finish(model, b, inputs, [
    ...lossOutputs(train.objective, settings.fixed, metrics),
    ...outputs,
    ...perParam,
  ]);
  return model;
}

/** Appends running sums to a train graph whose gradients are those of loss × weight. */
export function finishGrad(
  train: TrainGraph,
  layout: Layout,
  fixed: FixedNames,
  metrics: readonly string[],
): Model {
  const { model } = train;
  const b = new Builder(model, { provenance: 'accumulation' });
  const gradients = train.trained.map(({ gradient }) => gradient);
  const inputs: Value[] = [];
  const outputs: NamedOutputs = [];
  const accumulate = (carried: CarriedTensor, value: Value): void => {
    const input = graphInput(carried.input, carried.dtype, carried.shape);
    inputs.push(input);
    outputs.push([carried.output, b.op.Add(input, castTo(b, value, carried.dtype))]);
  };
  for (const [i, bucket] of layout.buckets.entries())
    accumulate(layout.sums[i]!, gatherBucket(b.op, bucket, gradients));
  accumulate(layout.weightSum, train.objective.weight);
  finish(model, b, inputs, [...lossOutputs(train.objective, fixed, metrics), ...outputs]);
  return model;
}

/** A model of its own that applies summed gradients. `like` gives its opset and IR version. */
export function emitUpdate(like: Model, settings: UpdateSettings): Model {
  const { layout } = settings;
  const model = new Model(new Graph());
  model.graph.name = 'update';
  model.irVersion = like.irVersion;
  model.opsets.set('', like.opset());
  const params = layout.params.map(({ input, dtype, shape }) => graphInput(input, dtype, shape));
  const sums = layout.sums.map(({ input, dtype, shape }) => graphInput(input, dtype, shape));
  const weight = graphInput(layout.weightSum.input, 'float32', []);
  const b = new Builder(model, { provenance: 'update' });
  const scale = b.op.Reciprocal(b.op.Max([weight, b.scalar(1e-12, 'float32')]));
  const { inputs, outputs } = update(b, settings, { params, gradients: sums, scale });
  finish(model, b, [...params, ...sums, weight, ...inputs], outputs);
  return model;
}

interface UpdateSources {
  /** Per parameter. */
  readonly params: readonly Value[];
  /** Per bucket. */
  readonly gradients: readonly Value[];
  readonly scale?: Value;
}

/** The update as inputs to add and outputs to name; parameters and gradients exist already. */
function update(
  b: Builder,
  { layout, fixed, optimizer, maxNorm }: UpdateSettings,
  sources: UpdateSources,
): { inputs: Value[]; outputs: NamedOutputs } {
  const { buckets, items } = layout;
  const lr = graphInput(fixed.lr, 'float32', []);
  const step = graphInput(fixed.step, 'float32', []);
  const stateInputs = layout.state.map((slots) =>
    slots.map(({ input, dtype, shape }) => graphInput(input, dtype, shape)),
  );
  const updated = buildUpdate(b, {
    buckets,
    params: buckets.map((bucket) => gatherBucket(b.op, bucket, sources.params)),
    gradients: sources.gradients,
    state: layout.state.map((slots, i) =>
      Object.fromEntries(slots.map(({ slot }, j) => [slot, stateInputs[i]![j]!])),
    ),
    ...(sources.scale === undefined ? {} : { scale: sources.scale }),
    lr,
    step,
    optimizer,
    maxNorm,
  });
  const next: Value[] = [];
  for (const [i, bucket] of buckets.entries())
    for (const [j, value] of scatterBucket(b.op, bucket, updated.params[i]!, items).entries())
      next[bucket.items[j]!] = value;
  return {
    inputs: [...stateInputs.flat(), lr, step],
    outputs: [
      ...layout.params.map(({ output }, i): [string, Value] => [output, next[i]!]),
      ...layout.state.flatMap((slots, i) =>
        slots.map(({ slot, output }): [string, Value] => [output, updated.state[i]![slot]!]),
      ),
      [fixed.gradNorm, updated.gradNorm],
    ],
  };
}

/** Outputs `loss`, `loss_weight` and the metrics. */
export function lossOutputs(
  { loss, weight, built }: Objective,
  fixed: Pick<FixedNames, 'loss' | 'weight'>,
  metrics: readonly string[],
): NamedOutputs {
  return [
    [fixed.loss, loss],
    [fixed.weight, weight],
    ...(built.metrics ?? []).map(({ value }, i): [string, Value] => [metrics[i]!, value]),
  ];
}

/** Attaches what `b` built, replaces the outputs of the graph, and drops what they do not need. */
export function finish(
  model: Model,
  b: Builder,
  inputs: readonly Value[],
  outputs: readonly (readonly [string, Value])[],
): void {
  const { graph } = model;
  // One value behind two slots, or an input handed straight out, would share a name with something else.
  const slots = outputs.map(
    ([name, value]) => [name, needsCopy(value, outputs) ? b.op.Identity(value) : value] as const,
  );
  applyEdit({
    label: 'outputs',
    graph,
    add: { nodes: b.nodes, at: 'end' },
    addInitializers: b.initializers,
    addInputs: inputs,
  });
  graph.clearOutputs();
  for (const [name, value] of slots) graph.addOutput(name, value);
  pruneGraph(graph);
}

function needsCopy(value: Value, outputs: readonly (readonly [string, Value])[]): boolean {
  return value.producer === undefined || outputs.filter(([, other]) => other === value).length > 1;
}

function graphInput(name: string, dtype: DType, shape: readonly number[]): Value {
  return new Value({ name, type: tensorType(dtype, shape) });
}
