/** The ort-training target from an adapted model to a folder. */
import { emitOrtTraining } from '../../passes/targets/ort-training/emit.js';
import type { OrtTrainingOptions } from '../../passes/targets/ort-training/options.js';
import { emitStep } from '../../passes/targets/step.js';
import type { Model } from '../../src/model.js';
import {
  type OrtTrainingArtifacts,
  ortTrainingArtifacts,
  type WriteOrtTrainingOptions,
  writeOrtTraining,
} from './artifacts.js';
import { startFromRun } from './start.js';

export interface ProduceOptions extends OrtTrainingOptions, Omit<WriteOrtTrainingOptions, 'force'> {
  /** A checkpoint of `train` to go on from, parameters and optimizer state; the options are those of its run. */
  readonly from?: string;
  /** Folder; absent to keep the result in memory. */
  readonly out?: string;
  readonly force?: boolean;
}

export interface ProducedOrtTraining extends OrtTrainingArtifacts {
  /** Paths that were written, the checkpoint last. */
  readonly files: readonly string[];
}

/**
 * Emits the models and their checkpoint. Throws what `emitOrtTraining` does, E_INVALID_DATA for a checkpoint of another
 * run, E_EXISTS.
 */
export async function produceOrtTraining(
  adapted: Model,
  options: ProduceOptions,
): Promise<ProducedOrtTraining> {
  const { from, out, force = false, nominal, externalData, write, ...target } = options;
  const models = emitOrtTraining(adapted, target);
  // The step target of the same settings says where the run kept the state of which parameter.
  const start = from === undefined ? undefined : await startFromRun(from, emitStep(adapted, target).manifest);
  const artifacts = await ortTrainingArtifacts(models, adapted, start);
  if (out === undefined) return { ...artifacts, files: [] };
  const files = await writeOrtTraining(out, artifacts, {
    force,
    ...(nominal === undefined ? {} : { nominal }),
    ...(externalData === undefined ? {} : { externalData }),
    ...(write === undefined ? {} : { write }),
  });
  return { ...artifacts, files };
}
