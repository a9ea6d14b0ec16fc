/**
 * The step target: training graphs of standard ops, tensors in and tensors out. Frozen weights stay initializers;
 * adapter tensors, optimizer state and a few scalars travel. What to feed and what comes back is in the manifest.
 */
import type { Model } from '../../src/model.js';
import type { AdapterRecord } from '../adapter-record.js';
import type { Method } from '../methods/contract/method.js';
import { proceduresOf } from '../procedures.js';
import { describeBatch, describeGraphs, type GraphName, tensorOf } from './describe.js';
import { emitUpdate, finishGrad, finishStep } from './finish.js';
import { planLayout } from './layout.js';
import { type StepManifest, stepManifestSchema } from './manifest.js';
import type { StepOptions } from './options.js';
import {
  checkGroups,
  checkRange,
  evaluationGraph,
  label,
  openTraining,
  settleTraining,
  trainingGraph,
} from './training.js';

export type { GroupOptions, StepOptions } from './options.js';

export interface StepArtifacts {
  /** One optimizer step; absent with accumulation. */
  readonly step?: Model;
  /** Gradients of one micro-batch, added to running sums; with accumulation only. */
  readonly grad?: Model;
  /** Applies the sums; with accumulation only. */
  readonly update?: Model;
  readonly eval: Model;
  readonly manifest: StepManifest;
}

/**
 * Emits training graphs for a model that holds an adapter; the model is not changed.
 * Throws E_NO_MATCH (no adapter, no such output, nothing to train), E_NO_GRADIENT, E_USAGE (options).
 */
export function emitStep(model: Model, options: StepOptions): StepArtifacts {
  const settings = settleTraining(options);
  const { optimizer, accumulation, maxNorm, methods, loss, schedule } = settings;
  const lossScale =
    options.lossScale === 'dynamic'
      ? options.lossScale
      : checkRange('lossScale', options.lossScale, (scale) => scale > 0, 'a factor above 0, or dynamic');
  const precision = options.precision === undefined ? {} : { precision: options.precision };
  const training = openTraining(model, options.inputs);
  const { record, adapted, names, fixed } = training;
  const asked = proceduralKeys(record, methods);
  const { train, metrics } = trainingGraph(training, settings, {
    mean: accumulation === 1,
    lossScale,
    lossScaleName: fixed.lossScale,
    ...precision,
  });
  const params = train.trained.map(({ param }) => param);
  const layout = planLayout(params, {
    names,
    optimizer,
    groups: checkGroups(options.groups ?? {}, params),
    flatLimit: options.flatLimit,
    // With accumulation the sums of the gradients are at hand.
    gradients: ({ key }) => accumulation === 1 && (options.gradients === true || asked.has(key)),
  });
  const update = { layout, fixed, optimizer, maxNorm };
  const graphs =
    accumulation === 1
      ? { step: finishStep(train, update, metrics) }
      : { grad: finishGrad(train, layout, fixed, metrics), update: emitUpdate(train.model, update) };
  const evaluation = evaluationGraph(training, settings, params, { metrics, ...precision });
  const models = { ...graphs, eval: evaluation.model };
  for (const [name, model] of Object.entries(models)) label(model, name);

  const fileName = options.fileName ?? ((graph: GraphName) => `${graph}.onnx`);
  const manifest: StepManifest = {
    schemaVersion: 1,
    base: { digest: record.base ?? null },
    graphs: describeGraphs(models, fileName),
    batch: describeBatch(adapted, models, train.objective.labels),
    params: [...layout.params],
    untrained: train.untrained.map(({ key }) => key),
    optimizer: { id: optimizer.id, config: optimizer.config, state: layout.state.flat() },
    scalars: [
      { name: fixed.lr, dtype: 'float32', role: 'lr' },
      { name: fixed.step, dtype: 'float32', role: 'step' },
      ...(train.dropout > 0 ? [{ name: fixed.seed, dtype: 'int32' as const, role: 'seed' as const }] : []),
      ...(train.dynamicScale
        ? [{ name: fixed.lossScale, dtype: 'float32' as const, role: 'lossScale' as const }]
        : []),
    ],
    outputs: {
      loss: fixed.loss,
      weight: fixed.weight,
      gradNorm: fixed.gradNorm,
      metrics: evaluation.metrics,
      model: evaluation.outputs.map(({ name, value }) => ({ name, ...tensorOf(value.type) })),
    },
    loss: { id: loss.id, config: loss.config, perplexity: loss.perplexity },
    schedule,
    lossScaling: train.dynamicScale ? LOSS_SCALING : null,
    clipping: maxNorm === null ? null : { maxNorm },
    accumulation:
      accumulation === 1
        ? null
        : { steps: accumulation, tensors: [...layout.sums], weight: layout.weightSum },
    dropout: train.dropout,
    precision: {
      params: layout.params[0]!.dtype,
      model: options.precision?.dtype ?? train.objective.modelDtype,
    },
    adapter: {
      entries: record.entries,
      sites: record.sites.map(({ path }) => path),
    },
  };
  return { ...models, manifest: stepManifestSchema.parse(manifest) };
}

/** torch.amp.GradScaler's rule. It starts at 65,536 and skips the first steps of most runs; short runs would feel that. */
const LOSS_SCALING = { init: 4096, growth: 2, backoff: 0.5, interval: 2000 } as const;

/** Keys of the parameters whose gradients procedures of methods read. */
function proceduralKeys(record: AdapterRecord, methods: readonly Method[]): Set<string> {
  return new Set(
    proceduresOf(record, methods).flatMap(({ procedure, params }) =>
      params.filter(({ role }) => procedure.gradients.includes(role)).map(({ param }) => param.key),
    ),
  );
}
