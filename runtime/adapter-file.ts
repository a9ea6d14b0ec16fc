/**
 * Adapter files: safetensors whose metadata holds the adapter's record (method, configuration, modules, digest of the
 * base weights). Keys are `<module path>.<parameter>`; matrices are stored as trained, [in, out].
 */
import {
  ADAPTER_METADATA_KEY,
  type AdapterParam,
  type AdapterRecord,
  parseAdapterRecord,
} from '../passes/adapter-record.js';
import { refuseTogether } from '../passes/adapters-together.js';
import type { Method } from '../passes/methods/contract/method.js';
import { fail } from '../src/errors.js';
import { encodeNumbers } from '../src/literals.js';
import { type Tensor, tensorOfBytes } from '../src/tensor.js';
import { isFloat } from '../src/types.js';
import type { AdapterFile } from './adapter.js';
import { digestFile } from './digest.js';
import { checkPlaces } from './distinct-places.js';
import { readAdapterOfOnnx } from './export/onnx-adapter/adapter.js';
import { isOnnxAdapter } from './export/onnx-adapter/read.js';
import { loadTensor, numbersOf } from './host-tensor.js';
import { isOrtCheckpoint } from './ort-training/read-checkpoint.js';
import { type ReadPeftOptions, readPeft } from './peft/read.js';
import { folderAround, isFolder } from './peft/source.js';
import { readSafetensors, type WritableTensor, writeSafetensors } from './safetensors.js';

export type { AdapterFile } from './adapter.js';

/**
 * Reads an adapter: a file of ours, or a folder that Hugging Face PEFT saved or an `.onnx_adapter`, for which the base has
 * to be given. Throws E_INVALID_DATA when the file is no adapter of ours or lacks a tensor of its record; for the others see
 * `readPeft` and `readAdapterOfOnnx`. Throws E_UNSUPPORTED for a file of several adapters that trained together.
 */
export async function readAdapter(path: string, foreign?: ReadPeftOptions): Promise<AdapterFile> {
  const file = await readAnyAdapter(path, foreign);
  refuseTogether(file.record, path);
  return file;
}

async function readAnyAdapter(path: string, foreign?: ReadPeftOptions): Promise<AdapterFile> {
  if (isFolder(path))
    return foreign === undefined
      ? fail('E_USAGE', {
          message: 'A folder of PEFT is read for a given base model',
          where: path,
          remedy: 'Give the base: --model base.onnx, or base of readAdapter',
        })
      : readPeft(path, foreign);
  if (isOnnxAdapter(path))
    return foreign === undefined
      ? fail('E_USAGE', {
          message:
            'An .onnx_adapter is read for a given base model, whose modules its names are matched with',
          where: path,
          remedy: 'Give the base: --model base.onnx, or base of readAdapter',
        })
      : readAdapterOfOnnx(path, foreign);
  if (isOrtCheckpoint(path))
    fail('E_INVALID_DATA', {
      message: "The file is a checkpoint of ONNX Runtime's training",
      where: path,
      remedy: `Write its adapter first: peft-compile adapter training_model.onnx --checkpoint ${path} -o adapter.safetensors`,
    });
  const around = folderAround(path);
  if (around !== undefined)
    fail('E_INVALID_DATA', {
      message: 'The file is a part of what PEFT saved',
      where: path,
      remedy: `Pass the folder: ${around}`,
    });
  return readTrained(path, foreign?.methods);
}

/**
 * Reads a file that `writeAdapter` wrote, of one adapter or of several that train together. Throws E_INVALID_DATA when it
 * is none or lacks a tensor of its record.
 */
export async function readTrained(path: string, methods?: readonly Method[]): Promise<AdapterFile> {
  const { tensors, metadata } = readSafetensors(path);
  const text =
    metadata.get(ADAPTER_METADATA_KEY) ??
    fail('E_INVALID_DATA', {
      message: 'The file has no adapter record in its metadata',
      where: path,
      remedy: 'Pass the adapter.safetensors that peft-compile train wrote',
    });
  const record = parseAdapterRecord(text, path);
  for (const site of record.sites)
    for (const param of Object.values(site.params)) checkTensor(path, param, tensors.get(param.key));
  await checkPlaces(record, tensors, path, methods);
  return { record, tensors, digest: await digestFile(path) };
}

/** Writes an adapter atomically. `tensors` by adapter key. */
export async function writeAdapter(
  path: string,
  record: AdapterRecord,
  tensors: ReadonlyMap<string, WritableTensor>,
  options: { readonly force?: boolean } = {},
): Promise<void> {
  const metadata = { [ADAPTER_METADATA_KEY]: JSON.stringify(record) };
  await writeSafetensors(path, tensors, { metadata, force: options.force ?? false });
}

/** The adapter's tensors in the dtypes of the model they go into: masters are float32, a model may be half precision. */
export async function modelTensors({ record, tensors }: AdapterFile): Promise<Map<string, Tensor>> {
  const cast = new Map<string, Tensor>();
  for (const site of record.sites)
    for (const { key, dtype } of Object.values(site.params)) {
      const tensor = tensors.get(key);
      if (tensor === undefined) continue;
      if (tensor.dtype === dtype) cast.set(key, tensor);
      else {
        const numbers = numbersOf(await loadTensor(tensor));
        cast.set(key, tensorOfBytes(dtype, tensor.dims, encodeNumbers(dtype, numbers)));
      }
    }
  return cast;
}

function checkTensor(path: string, { key, shape, dtype }: AdapterParam, tensor: Tensor | undefined): void {
  const wanted = `[${shape.join(', ')}]`;
  const found = tensor === undefined ? 'missing' : `[${tensor.dims.join(', ')}]`;
  const remedy = 'The file is incomplete or was edited; train again or restore it';
  if (found !== wanted)
    fail('E_INVALID_DATA', {
      message: `Tensor '${key}' is ${found}, the adapter's record says ${wanted}`,
      where: path,
      remedy,
    });
  // Masters are wider than the model they go into; numbers and indices never take each other's place.
  if (tensor !== undefined && isFloat(tensor.dtype) !== isFloat(dtype))
    fail('E_INVALID_DATA', {
      message: `Tensor '${key}' holds ${tensor.dtype}, the adapter's record says ${dtype}`,
      where: path,
      remedy,
    });
}
