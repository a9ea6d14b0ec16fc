/**
 * The target of ONNX Runtime's on-device training API: a training model whose gradients go into buffers of the runtime,
 * an eval model, and an optimizer model over sequences. The parameters are in a checkpoint, by the keys of the adapter's
 * record. Forward and backward pass are those of the step target.
 */
import { fail } from '../../../src/errors.js';
import type { Value } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import { Builder } from '../../../src/ops/builder.js';
import { dtypeOf } from '../../../src/value-type.js';
import { type AdapterParam, type AdapterRecord, allParams } from '../../adapter-record.js';
import { tensorOf } from '../describe.js';
import { finish, lossOutputs } from '../finish.js';
import type { BatchInput, StepManifest } from '../manifest.js';
import type { TrainGraph } from '../train-graph.js';
import { evaluationGraph, label, openTraining, trainingGraph } from '../training.js';
import { type Accumulators, addAccumulators } from './accumulators.js';
import { countSeed } from './dropout-seed.js';
import { type FrozenWeight, liftFrozen } from './frozen.js';
import { DROPOUT_SEED, LAZY_RESET_GRAD } from './names.js';
import { fitOperators } from './operators.js';
import { lowerOpset } from './opset.js';
import { emitOptimizer } from './optimizer-model.js';
import type { Divided } from './optimizers.js';
import type { OrtTrainingOptions } from './options.js';
import { checkProcedures, parameterSettings, settle } from './settings.js';
import { arrangeInputs, describeUsers, userInputs } from './signature.js';

export type { AdamMode, OrtTrainingOptions } from './options.js';

/** What goes into the checkpoint beside the numbers. */
export interface CheckpointPlan {
  readonly record: AdapterRecord;
  /** In the order of the models' inputs. */
  readonly trained: readonly AdapterParam[];
  /** Parameters of the adapter that do not train: no inputs of the models, but part of the adapter. */
  readonly untrained: readonly AdapterParam[];
  /** Weights of the base that are inputs of the models. */
  readonly frozen: readonly FrozenWeight[];
  /** Where adapters have dropout: the seed of the first pass. */
  readonly dropoutSeed?: number;
  /** Forward passes per optimizer step. */
  readonly accumulation: number;
  /** Slots of the step target's optimizer, in the order in which the runtime keeps them; empty for none. */
  readonly moments: readonly { readonly slot: string | undefined }[];
}

export interface OrtTrainingModels {
  readonly training: Model;
  readonly evaluation: Model;
  readonly optimizer: Model;
  readonly checkpoint: CheckpointPlan;
  /** What the caller feeds, in the order in which the API takes it. */
  readonly inputs: readonly BatchInput[];
  /** What a training step gives back, and an evaluation, in order. */
  readonly outputs: readonly string[];
  readonly evalOutputs: StepManifest['outputs']['model'];
}

/**
 * Emits for a model that holds an adapter; the model is not changed.
 * Throws E_NO_MATCH (no adapter, no such output, nothing to train), E_NO_GRADIENT, E_USAGE (options), and E_UNSUPPORTED
 * for what the runtime cannot carry: work of the host between steps, several rates or decays, other optimizers.
 */
export function emitOrtTraining(model: Model, options: OrtTrainingOptions): OrtTrainingModels {
  const settings = settle(options);
  const { native, maxNorm } = settings;
  const opened = openTraining(model, options.inputs, [LAZY_RESET_GRAD, DROPOUT_SEED]);
  const { record, adapted, fixed } = opened;
  checkProcedures(record, settings.methods);
  const { train, metrics } = trainingGraph(opened, settings, { mean: true, lossScale: settings.lossScale });
  const trained = train.trained.map(({ param }) => param);
  const divided = native.divide(
    parameterSettings(trained, options.groups ?? {}),
    settings.optimizer.config,
    maxNorm !== null,
  );
  const { model: evaluation } = evaluationGraph(opened, settings, trained, { metrics });
  const training = train.model;
  const seed = training.graph.inputs.find(({ name }) => name === fixed.seed);
  if (seed !== undefined) countSeed(training, seed);
  const accumulators = accumulate(train, divided, settings.accumulation);
  const users = userInputs(adapted, [training, evaluation], train.objective.labels);
  const outputs = lossOutputs(train.objective, fixed, metrics).slice(
    0,
    options.trainOutputs === 'metrics' ? undefined : 1,
  );
  finish(training, new Builder(training), [], [...outputs, ...accumulators.outputs]);
  training.opsets.set('com.microsoft', 1);
  const frozen = options.frozen === 'checkpoint' ? liftFrozen(training, evaluation) : [];
  const parameters = { trained, frozen: frozen.map(({ name }) => name), dropoutSeed: seed !== undefined };
  for (const model of [training, evaluation]) {
    lowerOpset(model);
    fitOperators(model);
  }
  arrangeInputs(training, users, parameters, accumulators);
  arrangeInputs(evaluation, users, parameters, { inputs: [], values: [] });
  const optimizer = emitOptimizer({
    optimizer: native,
    config: settings.optimizer.config,
    decay: divided.decay,
    lrScale: divided.lrScale,
    mode: options.adamMode ?? 'torch',
    schedule: settings.schedule,
    rate: options.rate ?? 'graph',
    maxNorm,
  });
  for (const [name, emitted] of Object.entries({ training, evaluation, optimizer })) label(emitted, name);
  const keys = new Set(trained.map(({ key }) => key));
  return {
    training,
    evaluation,
    optimizer,
    checkpoint: {
      record,
      trained,
      untrained: allParams(record).filter(({ key }) => !keys.has(key)),
      frozen,
      ...(seed === undefined ? {} : { dropoutSeed: settings.seed }),
      accumulation: settings.accumulation,
      moments: native.moments.map((_, i) => ({ slot: native.slots[i] })),
    },
    inputs: describeUsers(users),
    outputs: outputs.map(([name]) => name),
    evalOutputs: evaluation.graph.outputs.map(({ name, value }) => ({
      name: name ?? value.label,
      ...tensorOf(value.type),
    })),
  };
}

/** Gradients into the buffers of the runtime, which knows float32 ones. */
function accumulate(train: TrainGraph, divided: Divided, accumulation: number): Accumulators {
  return addAccumulators(
    train.model,
    train.trained.map(({ param: { key, shape }, input, gradient }, i) => {
      const { scale = 1, decay = 0 } = divided.gradients[i] ?? {};
      checkFloat(input, key);
      return { key, shape, param: input, gradient, scale: scale / accumulation, decay };
    }),
  );
}

function checkFloat(input: Value, key: string): void {
  if (dtypeOf(input) !== 'float32')
    fail('E_UNSUPPORTED', {
      message: `ONNX Runtime Training has float32 parameters only, and this one is ${dtypeOf(input)}`,
      where: key,
      remedy: 'Use the step target, or a base model in float32',
    });
}
