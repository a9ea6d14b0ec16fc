/** Writes `.onnx_adapter` in the order of fields and tables of ONNX Runtime's own writer. */
import { Builder, type Offset } from 'flatbuffers';
import { fail } from '../../../src/errors.js';
import { atomicWrite } from '../../../src/onnx/index.js';
import type { Tensor } from '../../../src/tensor.js';
import { DTYPE_CODES } from '../../../src/types.js';
import { loadTensor } from '../../host-tensor.js';
import {
  ADAPTER,
  type AdapterVersions,
  ALIGNMENT,
  FORMAT_VERSION,
  IDENTIFIER,
  LIMIT,
  PARAMETER,
  TYPES,
} from './schema.js';

export interface EncodeOnnxAdapterOptions extends Partial<AdapterVersions> {
  /**
   * Payloads start at multiples of it. Default 8, as the schema asks. ONNX Runtime's own writer aligns them to 4 only;
   * with 4, the bytes are its bytes.
   */
  readonly alignment?: 4 | 8;
}

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
  { force = false, ...encoding }: WriteOnnxAdapterOptions = {},
): Promise<void> {
  const bytes = await encodeOnnxAdapter(tensors, encoding, path);
  await atomicWrite(path, { force }, (sink) => sink.write(bytes));
}

/** The bytes of a file. `where` is named in errors. */
export async function encodeOnnxAdapter(
  tensors: ReadonlyMap<string, Tensor>,
  { adapterVersion = 1, modelVersion = 1, alignment = ALIGNMENT }: EncodeOnnxAdapterOptions = {},
  where = 'onnx_adapter',
): Promise<Uint8Array> {
  for (const version of [adapterVersion, modelVersion]) checkVersion(version, where);
  const builder = new Builder(sizeOf(tensors, where));
  const parameters: Offset[] = [];
  for (const [name, tensor] of tensors) parameters.push(await addParameter(builder, name, tensor, alignment));
  const vector = offsets(builder, parameters);
  // Fields in reverse: FlatBuffers are built from the end.
  builder.startObject(4);
  builder.addFieldOffset(ADAPTER.parameters, vector, 0);
  builder.addFieldInt32(ADAPTER.modelVersion, modelVersion, 0);
  builder.addFieldInt32(ADAPTER.adapterVersion, adapterVersion, 0);
  builder.addFieldInt32(ADAPTER.formatVersion, FORMAT_VERSION, 0);
  builder.finish(builder.endObject(), IDENTIFIER);
  return builder.asUint8Array();
}

async function addParameter(
  builder: Builder,
  name: string,
  tensor: Tensor,
  alignment: number,
): Promise<Offset> {
  const { dims, dtype } = tensor;
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
  const { data } = await loadTensor(tensor);
  const nameAt = builder.createString(name);
  builder.startVector(8, dims.length, 8);
  for (const dim of [...dims].reverse()) builder.addInt64(BigInt(dim));
  const dimsAt = builder.endVector();
  builder.prep(alignment, data.length);
  const dataAt = builder.createByteVector(data);
  builder.startObject(4);
  builder.addFieldOffset(PARAMETER.rawData, dataAt, 0);
  builder.addFieldInt32(PARAMETER.dataType, DTYPE_CODES[dtype], 0);
  builder.addFieldOffset(PARAMETER.dims, dimsAt, 0);
  builder.addFieldOffset(PARAMETER.name, nameAt, 0);
  return builder.endObject();
}

function offsets(builder: Builder, tables: readonly Offset[]): Offset {
  builder.startVector(4, tables.length, 4);
  for (const table of [...tables].reverse()) builder.addOffset(table);
  return builder.endVector();
}

/** An upper bound of the file's size, so that the builder never has to copy what it has. */
function sizeOf(tensors: ReadonlyMap<string, Tensor>, where: string): number {
  let size = 64;
  for (const [name, { dims, data }] of tensors)
    size += 96 + 3 * name.length + 8 * dims.length + data.byteLength + 2 * ALIGNMENT;
  if (size > LIMIT)
    fail('E_UNSUPPORTED', {
      message: `The adapter takes about ${size} bytes; the format ends at 2 GiB`,
      where,
      remedy: 'Export it as safetensors or npz, or in float16',
    });
  return size;
}

function checkVersion(version: number, where: string): void {
  if (!Number.isInteger(version) || version < -(2 ** 31) || version >= 2 ** 31)
    fail('E_USAGE', {
      message: `A version is a 32-bit integer, ${version} is none`,
      where,
      remedy: 'Give a whole number below 2147483648',
    });
}
