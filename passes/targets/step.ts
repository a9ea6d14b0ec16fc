/**
 * The step target: training graphs of standard ops, tensors in and tensors out. Frozen weights stay initializers;
 * adapter tensors, optimizer state and a few scalars travel. What to feed and what comes back is in the manifest.
 */
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import {
  type AdapterParam,
  type AdapterRecord,
  readAdapterRecord,
  trainableParams,
} from '../adapter-record.js';
import { configuredLoss } from '../losses/index.js';
import type { Method } from '../methods/contract/method.js';
import { fixInputs } from '../normalize/fixed-inputs.js';
import { optimizerById } from '../optimizers/index.js';
import { parseOptions } from '../options.js';
import { proceduresOf } from '../procedures.js';
import { describeBatch, describeGraphs, type GraphName, tensorOf } from './describe.js';
import { emitEval } from './eval.js';
import { emitUpdate, finishGrad, finishStep } from './finish.js';
import { claimFixedNames, planLayout } from './layout.js';
import { type StepManifest, scheduleSchema, stepManifestSchema } from './manifest.js';
import { PublicNames } from './names.js';
import type { GroupOptions, StepOptions } from './options.js';
import { buildTrainGraph } from './train-graph.js';

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
  const record = readAdapterRecord(model);
  const adapted = fixInputs(model, options.inputs);
  const methods = options.methods ?? [];
  const asked = proceduralKeys(record, methods);
  const loss = configuredLoss(options.loss, options.lossConfig);
  const chosen = options.optimizer ?? 'adamw';
  const optimizer = (typeof chosen === 'string' ? optimizerById(chosen) : chosen).configure(
    options.optimizerConfig,
  );
  const accumulation = checkCount('accumulation', options.accumulation ?? 1);
  const maxNorm = checkRange('clip', options.clip ?? null, (norm) => norm > 0, 'a norm above 0');
  const dropout = checkRange('dropout', options.dropout, (p) => p >= 0 && p < 1, 'a probability in [0, 1)');
  const lossScale =
    options.lossScale === 'dynamic'
      ? options.lossScale
      : checkRange('lossScale', options.lossScale, (scale) => scale > 0, 'a factor above 0, or dynamic');
  const { config: schedule } = parseOptions(
    scheduleSchema,
    options.schedule ?? { id: 'constant', learningRate: 1e-3 },
    'schedule',
  );
  const precision = options.precision === undefined ? {} : { precision: options.precision };
  const names = new PublicNames(adapted);
  const fixed = claimFixedNames(names);
  const labelNames = new Map<string, string>();

  const train = buildTrainGraph(adapted, trainableParams(record), {
    record,
    methods,
    loss,
    names,
    labelNames,
    mean: accumulation === 1,
    seedName: fixed.seed,
    dropout,
    lossScale,
    lossScaleName: fixed.lossScale,
    ...precision,
    recompute: checkGroupCount(options.recompute ?? false),
    gradientRules: options.gradientRules ?? [],
    lowerings: options.lowerings ?? [],
  });
  const metrics = (train.objective.built.metrics ?? []).map(({ name }) => names.claim(name));
  const params = train.trained.map(({ param }) => param);
  const layout = planLayout(params, {
    names,
    optimizer,
    groups: checkGroups(options.groups ?? {}, params),
    flatLimit: options.flatLimit,
    // With accumulation the sums of the gradients are at hand.
    gradients: ({ key }) => accumulation === 1 && (options.gradients === true || asked.has(key)),
  });
  const settings = { layout, fixed, optimizer, maxNorm };
  const graphs =
    accumulation === 1
      ? { step: finishStep(train, settings, metrics) }
      : { grad: finishGrad(train, layout, fixed, metrics), update: emitUpdate(train.model, settings) };
  const evaluation = emitEval(adapted, params, {
    loss,
    names,
    labelNames,
    fixed,
    metrics,
    outputs: options.evalOutputs ?? 'loss',
    ...precision,
  });
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

function checkGroupCount(recompute: boolean | number): boolean | number {
  return typeof recompute === 'boolean' ? recompute : checkCount('recompute', recompute);
}

function checkCount(what: string, count: number): number {
  if (Number.isSafeInteger(count) && count >= 1) return count;
  return fail('E_USAGE', { message: `${what} is ${count}`, remedy: 'Give a whole number from 1' });
}

/** Throws E_USAGE for a number that is not what the option takes; absent passes. */
function checkRange<T extends number | null | undefined>(
  what: string,
  value: T,
  fits: (value: number) => boolean,
  wanted: string,
): T {
  if (value === null || value === undefined || (Number.isFinite(value) && fits(value))) return value;
  return fail('E_USAGE', { message: `${what} is ${value}`, remedy: `Give ${wanted}` });
}

/** Throws E_NO_MATCH for settings of a group that no parameter is in. */
function checkGroups(
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

/** Names an emitted graph for people who open it. */
function label(model: Model, name: string): void {
  model.graph.name = name;
  model.producerName = 'peft-compile';
  model.producerVersion = '';
}
