/** What a checkpoint starts from: the adapter as it was inserted, or a run of our own trainer with its optimizer state. */
import type { AdapterParam } from '../../passes/adapter-record.js';
import type { CarriedTensor, StepManifest } from '../../passes/targets/manifest.js';
import { fail } from '../../src/errors.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { countOf } from '../../src/types.js';
import { type HostTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';
import { loadCheckpoint } from '../train/checkpoint.js';
import type { OptimizerState } from './checkpoint.js';
import { isOrtCheckpoint } from './read-checkpoint.js';

export interface Start {
  /** Parameters by key. */
  readonly params: ReadonlyMap<string, HostTensor>;
  /** Moments by slot and key; absent for a fresh optimizer. */
  readonly optimizer?: {
    readonly step: number;
    readonly slots: ReadonlyMap<string, ReadonlyMap<string, HostTensor>>;
  };
}

/**
 * The state of a run of `train`, from one of its checkpoints. `manifest` is that of the step graphs of the run, whose
 * flat optimizer tensors it takes apart.
 * Throws E_INVALID_DATA for a checkpoint of other graphs, or of ONNX Runtime's.
 */
export async function startFromRun(path: string, manifest: StepManifest): Promise<Start> {
  if (isOrtCheckpoint(path))
    return fail('E_INVALID_DATA', {
      message:
        "The file is a checkpoint of ONNX Runtime's training, and a run of peft-compile train is wanted",
      where: path,
      remedy:
        'Load it in the runtime with the models that are there: what was saved with optimizer state goes on by itself',
    });
  const { run, params, state } = await loadCheckpoint(path);
  for (const { key, shape } of manifest.params)
    if (params.get(key)?.dims.join() !== shape.join()) foreign(path, `parameter '${key}'`);
  if (params.size !== manifest.params.length) foreign(path, 'number of parameters');
  const shapes = new Map(manifest.params.map(({ key, shape }) => [key, shape]));
  const slots = new Map<string, Map<string, HostTensor>>();
  for (const carried of manifest.optimizer.state) {
    const flat = state[carried.input];
    if (flat?.dims.join() !== carried.shape.join())
      return foreign(path, `optimizer state '${carried.input}'`);
    const slot = slots.get(carried.slot) ?? new Map<string, HostTensor>();
    slots.set(carried.slot, slot);
    for (const [key, tensor] of membersOf(carried, flat, shapes)) slot.set(key, tensor);
  }
  return { params, optimizer: { step: run.step, slots } };
}

/** The optimizer state of a checkpoint in the runtime's form: all moments of the optimizer, zero where we keep none. */
export function optimizerState(
  trained: readonly AdapterParam[],
  moments: readonly { readonly slot: string | undefined }[],
  start: NonNullable<Start['optimizer']>,
): OptimizerState {
  return {
    step: start.step,
    initialLearningRate: 0,
    moments: new Map(
      trained.map(({ key, shape }) => [
        key,
        moments.map(({ slot }): Tensor => {
          const kept = slot === undefined ? undefined : start.slots.get(slot)?.get(key);
          if (slot !== undefined && kept === undefined)
            fail('E_INVALID_DATA', {
              message: `The run has no '${slot}' of parameter '${key}'`,
              remedy: 'Go on with the optimizer that the run was trained with',
            });
          const { dtype, dims, data } = kept ?? zeros(shape);
          return tensorOfBytes(dtype, dims, data);
        }),
      ]),
    ),
  };
}

function zeros(shape: readonly number[]): HostTensor {
  const count = countOf(shape);
  return { dtype: 'float32', dims: shape, data: new Uint8Array(4 * count) };
}

function* membersOf(
  { members }: CarriedTensor,
  flat: HostTensor,
  shapes: ReadonlyMap<string, readonly number[]>,
): Generator<[string, HostTensor]> {
  const numbers = numbersOf(flat);
  for (const { key, offset, count } of members)
    yield [key, tensorOfNumbers(flat.dtype, shapes.get(key) ?? [], numbers.subarray(offset, offset + count))];
}

function foreign(path: string, what: string): never {
  return fail('E_INVALID_DATA', {
    message: `The checkpoint is of another run: its ${what} is not that of these graphs`,
    where: path,
    remedy: 'Give the model and the optimizer that the run was trained with',
  });
}
