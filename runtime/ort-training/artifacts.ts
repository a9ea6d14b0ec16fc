/** The folder that ONNX Runtime's training API loads: three models and a checkpoint. */
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ADAPTER_METADATA_KEY, type AdapterParam } from '../../passes/adapter-record.js';
import type { OrtTrainingModels } from '../../passes/targets/ort-training/emit.js';
import { DROPOUT_SEED } from '../../passes/targets/ort-training/names.js';
import { trainingDtype } from '../../passes/targets/trainables.js';
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import { type WriteOptions, writeModel } from '../../src/onnx/index.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { isFloat } from '../../src/types.js';
import { loadTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';
import type { OrtCheckpoint } from './checkpoint.js';
import { optimizerState, type Start } from './start.js';
import { widened } from './widened.js';
import { nominalOf, type WriteCheckpointOptions, writeCheckpoint } from './write-checkpoint.js';

/** Names that ONNX Runtime's own generator gives. */
export const ORT_TRAINING_FILES = {
  training: 'training_model.onnx',
  evaluation: 'eval_model.onnx',
  optimizer: 'optimizer_model.onnx',
  checkpoint: 'checkpoint',
  nominal: 'nominal_checkpoint',
} as const;

export interface OrtTrainingArtifacts extends OrtTrainingModels {
  /** Parameters as they start, and the adapter's record as a property. */
  readonly state: OrtCheckpoint;
}

/**
 * Emitted models with their checkpoint; values are those of the adapted model, or of `start`. What was bfloat16 is computed
 * in float32.
 */
export async function ortTrainingArtifacts(
  models: OrtTrainingModels,
  adapted: Model,
  start?: Start,
): Promise<OrtTrainingArtifacts> {
  const { record, trained, untrained, frozen, dropoutSeed, accumulation, moments } = models.checkpoint;
  const stored = new Map([...adapted.graph.initializers].map(({ name, tensor }) => [name, tensor]));
  const storedOf = (param: AdapterParam): Tensor =>
    stored.get(param.name) ??
    fail('E_NO_MATCH', {
      message: `The adapted model has no initializer '${param.name}' for parameter '${param.key}'`,
      remedy: 'Emit from the model that insert wrote, adapters as initializers',
    });
  const trainable = new Map<string, Tensor>();
  for (const param of trained) trainable.set(param.key, await master(param, storedOf(param), start));
  const fixed = new Map<string, Tensor>(frozen.map(({ name, tensor }) => [name, tensor]));
  // Others stay in the models: the runtime has float32 parameters only.
  for (const param of untrained)
    if (isFloat(param.dtype) && trainingDtype(param.dtype) === 'float32')
      fixed.set(param.key, await master(param, storedOf(param), undefined));
  // A run that goes on has used up a seed per forward pass.
  const passes = accumulation * (start?.optimizer?.step ?? 0);
  if (dropoutSeed !== undefined) fixed.set(DROPOUT_SEED, counter(dropoutSeed + passes));
  return {
    ...widened(models),
    state: {
      trainable,
      frozen: fixed,
      nominal: false,
      ...(start?.optimizer === undefined
        ? {}
        : { optimizer: optimizerState(trained, moments, start.optimizer) }),
      properties: new Map([[ADAPTER_METADATA_KEY, JSON.stringify(record)]]),
    },
  };
}

export interface WriteOrtTrainingOptions extends WriteCheckpointOptions {
  /** Write a nominal checkpoint too: names and types of the parameters without their values. Default false. */
  readonly nominal?: boolean;
  /** How external data of the base gets into the folder; see `writeModel`. */
  readonly write?: Pick<WriteOptions, 'weights' | 'externalData'>;
}

/** Writes the folder, the checkpoint last. Returns the paths. Throws E_EXISTS, E_IO. */
export async function writeOrtTraining(
  folder: string,
  artifacts: OrtTrainingArtifacts,
  options: WriteOrtTrainingOptions = {},
): Promise<string[]> {
  const { force = false, nominal = false, write = {} } = options;
  await mkdir(folder, { recursive: true });
  const written: string[] = [];
  for (const name of ['training', 'evaluation', 'optimizer'] as const) {
    const path = join(folder, ORT_TRAINING_FILES[name]);
    // The models share data files: those that the first one brought along are there already, and are the same.
    const ours = written.length > 0 && !existsSync(path);
    await writeModel(artifacts[name], path, { ...write, force: force || ours });
    written.push(path);
  }
  if (nominal)
    written.push(
      ...(await writeCheckpoint(join(folder, ORT_TRAINING_FILES.nominal), nominalOf(artifacts.state), {
        force,
        externalData: 'never',
      })),
    );
  written.push(
    ...(await writeCheckpoint(join(folder, ORT_TRAINING_FILES.checkpoint), artifacts.state, options)),
  );
  return written;
}

/** First value of a trained parameter, in the dtype that is trained. */
async function master(param: AdapterParam, stored: Tensor, start: Start | undefined): Promise<Tensor> {
  const given = start?.params.get(param.key);
  if (given === undefined && start !== undefined)
    fail('E_INVALID_DATA', {
      message: `There is no value to start from for parameter '${param.key}'`,
      remedy: 'Give a checkpoint of a run that trained this adapter',
    });
  const value = given ?? (await loadTensor(stored));
  const dtype = trainingDtype(param.dtype);
  const { dims, data } = value.dtype === dtype ? value : tensorOfNumbers(dtype, value.dims, numbersOf(value));
  return tensorOfBytes(dtype, dims, data);
}

function counter(seed: number): Tensor {
  const { dtype, dims, data } = tensorOfNumbers('float32', [1], [seed]);
  return tensorOfBytes(dtype, dims, data);
}
