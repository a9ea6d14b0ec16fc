/** Reads `.onnx_adapter`. Payloads stay in the file until they are asked for. */
import { fail } from '../../../src/errors.js';
import { FileSource, MemorySource, type Source } from '../../../src/onnx/source.js';
import { BytesData, type Tensor } from '../../../src/tensor.js';
import { byteSize, countOf, dtypeOfCode } from '../../../src/types.js';
import { identifierOf, rootTable, type TableReader } from '../../flatbuffer/read.js';
import { ADAPTER, FORMAT_VERSION, IDENTIFIER, type OnnxAdapter, PARAMETER, TYPES } from './schema.js';

/** Axes above this are no tensor of a model, nor are sizes above that. */
const MAX_AXES = 64;
const MAX_SIZE = 2n ** 40n;

const RESTORE = 'It is truncated or damaged; write it again';

/** Whether a file begins as an `.onnx_adapter` does, whatever its name is. */
export function isOnnxAdapter(path: string): boolean {
  const source = new FileSource(path);
  try {
    return identifierOf(source) === IDENTIFIER;
  } finally {
    source.close();
  }
}

/** Throws E_INVALID_DATA for a file that is malformed in any way, E_UNSUPPORTED for another version of the format, E_IO. */
export function readOnnxAdapter(path: string): OnnxAdapter {
  return parse(new FileSource(path));
}

export function decodeOnnxAdapter(bytes: Uint8Array, label = 'onnx_adapter in memory'): OnnxAdapter {
  return parse(new MemorySource(bytes, label));
}

function parse(source: Source): OnnxAdapter {
  if (identifierOf(source) !== IDENTIFIER) corrupt(source, `it does not begin with the mark '${IDENTIFIER}'`);
  const root = rootTable(source, RESTORE);
  const format = root.int32(ADAPTER.formatVersion) ?? 0;
  if (format !== FORMAT_VERSION)
    fail('E_UNSUPPORTED', {
      message: `The file has format version ${format}; version ${FORMAT_VERSION} is what there is`,
      where: source.label,
      remedy: 'Write the adapter again with a current tool',
    });
  const parameters = root.tables(ADAPTER.parameters) ?? corrupt(source, 'it has no parameters');
  const tensors = new Map<string, Tensor>();
  for (const [i, table] of parameters.entries()) {
    const name = table.string(PARAMETER.name);
    if (name === undefined || name === '') return corrupt(source, `parameter ${i} has no name`);
    if (tensors.has(name)) corrupt(source, `it has two parameters '${name}'`);
    tensors.set(name, tensorOf(source, table, name));
  }
  return {
    adapterVersion: root.int32(ADAPTER.adapterVersion) ?? 0,
    modelVersion: root.int32(ADAPTER.modelVersion) ?? 0,
    tensors,
  };
}

function tensorOf(source: Source, table: TableReader, name: string): Tensor {
  const sizes = table.int64s(PARAMETER.dims, MAX_AXES) ?? [];
  if (sizes.length === 0) corrupt(source, `'${name}' has no dims`);
  for (const size of sizes)
    if (size < 0n || size > MAX_SIZE) corrupt(source, `'${name}' has a dim of ${size}`);
  const dims = sizes.map(Number);
  const code = table.int32(PARAMETER.dataType) ?? 0;
  const dtype = dtypeOfCode(code);
  if (dtype === undefined || !TYPES.has(dtype))
    return corrupt(source, `'${name}' has element type ${dtype ?? code}, which the format lacks`);
  const data = table.payload(PARAMETER.rawData) ?? new BytesData(new Uint8Array(0));
  const expected = byteSize(dtype, countOf(dims));
  if (data.byteLength !== expected)
    corrupt(source, `'${name}' has ${data.byteLength} bytes, ${dtype}[${dims.join(', ')}] takes ${expected}`);
  return { dtype, dims, data };
}

function corrupt(source: Source, why: string): never {
  return fail('E_INVALID_DATA', {
    message: `The file is no readable .onnx_adapter: ${why}`,
    where: source.label,
    remedy: RESTORE,
  });
}
