/** Targets in memory or on disk, by one function. */
import { type AdaptedOptions, emitAdapted } from '../../passes/targets/adapted.js';
import { lowerStep } from '../../passes/targets/for-device.js';
import { emitStep, type StepArtifacts, type StepOptions } from '../../passes/targets/step.js';
import type { Model } from '../../src/model.js';
import { type WriteOptions, writeModel } from '../../src/onnx/index.js';
import { artifactsInMemory, loadArtifacts, type TrainArtifacts, writeArtifacts } from '../artifacts.js';
import { providerOf } from '../ep/index.js';
import {
  type ProducedOrtTraining,
  type ProduceOptions,
  produceOrtTraining,
} from '../ort-training/produce.js';

interface Destination {
  /** Folder of the training targets, file of the adapted one; absent to keep the result in memory. */
  readonly out?: string;
  /** Overwrite what is there. Default false. */
  readonly force?: boolean;
}

/** Training graphs of standard ops: `step` (or `grad` and `update`), `eval`, and a manifest that says how to drive them. */
export interface EmitStepOptions extends StepOptions, Destination {
  readonly target: 'step';
  /** The form that stays on one device, for batches of one size; `train` does this itself, a page cannot. */
  readonly device?: StepDevice;
}

export interface StepDevice {
  /** An execution provider: `webgpu`. */
  readonly id: string;
  /** A number for every symbolic dimension of the batch: `{batch: 4, sequence: 64}`. */
  readonly sizes: Readonly<Record<string, number>>;
}

/** Training graphs for a device, or as they are. Throws E_USAGE for a device that there is not, or a size that lacks. */
export function forDevice(artifacts: StepArtifacts, device?: StepDevice): StepArtifacts {
  const needs = device === undefined ? undefined : providerOf(device.id).needs;
  if (device === undefined || needs === undefined) return artifacts;
  return lowerStep(artifacts, needs, new Map(Object.entries(device.sizes)));
}

/** The inference graph with the adapter beside the base weights. */
export interface EmitAdaptedOptions extends AdaptedOptions, Destination {
  readonly target: 'adapted';
  /** How external data of the base gets to another folder. */
  readonly write?: Pick<WriteOptions, 'weights'>;
}

/** What ONNX Runtime's on-device training API loads: training, eval and optimizer models, and a checkpoint. */
export interface EmitOrtTrainingOptions extends ProduceOptions {
  readonly target: 'ort-training';
}

/**
 * Emits training graphs for a model that holds an adapter; the model is not changed. The result goes to `train`: its
 * graphs are models in memory, or paths when they were written to `out`.
 * @throws E_NO_MATCH (no adapter, no such output), E_NO_GRADIENT with the path to the operator without a rule,
 * E_USAGE (options), E_EXISTS (files in `out`).
 */
export function emit(adapted: Model, options: EmitStepOptions): Promise<TrainArtifacts>;
/**
 * Emits the adapted inference graph; the model is not changed. With `adapterIo: 'inputs'`, low-rank adapters may have any
 * rank and right factors hold the scale (`rank`, `scale`); `serve` does the same from the base, with a cleaner graph.
 * @throws E_NO_MATCH (no adapter), E_USAGE (names), E_EXISTS.
 */
export function emit(adapted: Model, options: EmitAdaptedOptions): Promise<Model>;
/**
 * Emits models and a checkpoint for ONNX Runtime's on-device training API; the model is not changed.
 * @throws as for the step target, and E_UNSUPPORTED for what that API cannot do; E_INVALID_DATA (`from`).
 */
export function emit(adapted: Model, options: EmitOrtTrainingOptions): Promise<ProducedOrtTraining>;
export async function emit(
  adapted: Model,
  options: EmitStepOptions | EmitAdaptedOptions | EmitOrtTrainingOptions,
): Promise<TrainArtifacts | Model | ProducedOrtTraining> {
  const force = options.force ?? false;
  if (options.target === 'ort-training') {
    const { target: _target, ...settings } = options;
    return produceOrtTraining(adapted, settings);
  }
  if (options.target === 'adapted') {
    const model = emitAdapted(adapted, { scale: 'factor', rank: 'free', ...options });
    if (options.out !== undefined) await writeModel(model, options.out, { ...options.write, force });
    return model;
  }
  const emitted = forDevice(emitStep(adapted, options), options.device);
  if (options.out === undefined) return artifactsInMemory(emitted, adapted);
  await writeArtifacts(options.out, emitted, adapted, { force });
  return loadArtifacts(options.out);
}
