/** Writes `.onnx_adapter`. */
import { fail } from '../../../src/errors.js';
import { atomicWrite } from '../../../src/onnx/index.js';
import type { Tensor } from '../../../src/tensor.js';
import { DTYPE_CODES } from '../../../src/types.js';
import { bytes, int32, int64s, type TableNode, table, tables, text } from '../../flatbuffer/objects.js';
import { type FlatBuffer, layOut, wholeOf } from '../../flatbuffer/write.js';
import { ADAPTER, type AdapterVersions, FORMAT_VERSION, IDENTIFIER, PARAMETER, TYPES } from './schema.js';

export type EncodeOnnxAdapterOptions = Partial<AdapterVersions>;

export interface WriteOnnxAdapterOptions extends EncodeOnnxAdapterOptions {
  readonly force?: boolean;
}

/**
 * Writes tensors by name of the graph input. Versions are 32-bit integers and default to 1. Throws E_UNSUPPORTED for
 * scalars, for types that the format lacks and above 2 GiB; E_USAGE for a version out of range; E_EXISTS.
 */
export async function writeOnnxAdapter(
  path: string,
  tensors: ReadonlyMap<string, Tensor>,
  { force = false, ...versions }: WriteOnnxAdapterOptions = {},
): Promise<void> {
  const buffer = bufferOf(tensors, versions, path);
  await atomicWrite(path, { force }, (sink) => buffer.write(sink));
}

/** The bytes of a file. `where` is named in errors. */
export async function encodeOnnxAdapter(
  tensors: ReadonlyMap<string, Tensor>,
  versions: EncodeOnnxAdapterOptions = {},
  where = 'onnx_adapter',
): Promise<Uint8Array> {
  return wholeOf(bufferOf(tensors, versions, where));
}

function bufferOf(
  tensors: ReadonlyMap<string, Tensor>,
  { adapterVersion = 1, modelVersion = 1 }: EncodeOnnxAdapterOptions,
  where: string,
): FlatBuffer {
  for (const version of [adapterVersion, modelVersion]) checkVersion(version, where);
  const root = table({
    [ADAPTER.formatVersion]: int32(FORMAT_VERSION),
    [ADAPTER.adapterVersion]: int32(adapterVersion),
    [ADAPTER.modelVersion]: int32(modelVersion),
    [ADAPTER.parameters]: tables([...tensors].map(([name, tensor]) => parameter(name, tensor))),
  });
  return layOut(root, IDENTIFIER, 'Export it as safetensors or npz, or in float16');
}

function parameter(name: string, { dims, dtype, data }: Tensor): TableNode {
  if (dims.length === 0)
    fail('E_UNSUPPORTED', {
      message: 'The format has no scalars',
      where: name,
      remedy: 'Export it as npz',
    });
  if (!TYPES.has(dtype))
    fail('E_UNSUPPORTED', {
      message: `The format has no ${dtype}`,
      where: name,
      remedy: 'Export it as safetensors or npz',
    });
  return table({
    [PARAMETER.name]: text(name),
    [PARAMETER.dims]: int64s(dims),
    [PARAMETER.dataType]: int32(DTYPE_CODES[dtype]),
    [PARAMETER.rawData]: bytes(data),
  });
}

function checkVersion(version: number, where: string): void {
  if (!Number.isInteger(version) || version < -(2 ** 31) || version >= 2 ** 31)
    fail('E_USAGE', {
      message: `A version is a 32-bit integer, ${version} is none`,
      where,
      remedy: 'Give a whole number below 2147483648',
    });
}
