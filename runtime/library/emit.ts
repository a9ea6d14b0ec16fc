/** Targets in memory or on disk, by one function. */
import { type AdaptedOptions, emitAdapted } from '../../passes/targets/adapted.js';
import { emitStep, type StepOptions } from '../../passes/targets/step.js';
import type { Model } from '../../src/model.js';
import { type WriteOptions, writeModel } from '../../src/onnx/index.js';
import { artifactsInMemory, loadArtifacts, type TrainArtifacts, writeArtifacts } from '../artifacts.js';

interface Destination {
  /** Folder of the step target, file of the adapted one; absent to keep the result in memory. */
  readonly out?: string;
  /** Overwrite what is there. Default false. */
  readonly force?: boolean;
}

/** Training graphs of standard ops: `step` (or `grad` and `update`), `eval`, and a manifest that says how to drive them. */
export interface EmitStepOptions extends StepOptions, Destination {
  readonly target: 'step';
}

/** The inference graph with the adapter beside the base weights. */
export interface EmitAdaptedOptions extends AdaptedOptions, Destination {
  readonly target: 'adapted';
  /** How external data of the base gets to another folder. */
  readonly write?: Pick<WriteOptions, 'weights'>;
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
export async function emit(
  adapted: Model,
  options: EmitStepOptions | EmitAdaptedOptions,
): Promise<TrainArtifacts | Model> {
  const force = options.force ?? false;
  if (options.target === 'adapted') {
    const model = emitAdapted(adapted, { scale: 'factor', rank: 'free', ...options });
    if (options.out !== undefined) await writeModel(model, options.out, { ...options.write, force });
    return model;
  }
  const emitted = emitStep(adapted, options);
  if (options.out === undefined) return artifactsInMemory(emitted, adapted);
  await writeArtifacts(options.out, emitted, adapted, { force });
  return loadArtifacts(options.out);
}
