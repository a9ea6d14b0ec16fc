/** `TensorProto` and `SparseTensorProto` to tensors with payload handles. */

import type { SparseTensor } from '../attribute.js';
import { fail } from '../errors.js';
import { BytesData, elementsOf, INLINE_LIMIT, type Tensor, type TensorData } from '../tensor.js';
import { byteSize, countOf, type DType, dtypeOfCode } from '../types.js';
import type { ExternalFiles } from './external.js';
import { ENTRY, SPARSE, TENSOR } from './fields.js';
import { setOrigin } from './origin.js';
import { countEntries, FileData, SparseData, TypedData, UnlocatedData } from './payload.js';
import { BYTES, corrupt, expectWire, FIXED32, FIXED64, type Message, type Parsed, VARINT } from './wire.js';

/** What decoding needs to know about the file. */
export interface FileContext {
  readonly label: string;
  /** Undefined for a model that was decoded from bytes without a path. */
  readonly externals: ExternalFiles | undefined;
}

interface Storage {
  readonly field: number;
  readonly wire: number;
  /** Bytes in raw layout of one entry of the field. */
  readonly unit: 1 | 2 | 4 | 8;
}

const storage = (field: number, wire: number, unit: 1 | 2 | 4 | 8): Storage => ({ field, wire, unit });
const FLOAT = storage(TENSOR.floatData, FIXED32, 4);
const DOUBLE = storage(TENSOR.doubleData, FIXED64, 8);
const INT32_AS_1 = storage(TENSOR.int32Data, VARINT, 1);
const INT32_AS_2 = storage(TENSOR.int32Data, VARINT, 2);

/** Which typed field holds which dtype (comments of `TensorProto` in `onnx.proto`). */
const STORAGE: Readonly<Partial<Record<DType, Storage>>> = {
  float32: FLOAT,
  complex64: FLOAT,
  float64: DOUBLE,
  complex128: DOUBLE,
  int64: storage(TENSOR.int64Data, VARINT, 8),
  uint64: storage(TENSOR.uint64Data, VARINT, 8),
  uint32: storage(TENSOR.uint64Data, VARINT, 4),
  int32: storage(TENSOR.int32Data, VARINT, 4),
  int16: INT32_AS_2,
  uint16: INT32_AS_2,
  float16: INT32_AS_2,
  bfloat16: INT32_AS_2,
  int8: INT32_AS_1,
  uint8: INT32_AS_1,
  bool: INT32_AS_1,
  float8e4m3fn: INT32_AS_1,
  float8e4m3fnuz: INT32_AS_1,
  float8e5m2: INT32_AS_1,
  float8e5m2fnuz: INT32_AS_1,
  float8e8m0: INT32_AS_1,
  int4: INT32_AS_1,
  uint4: INT32_AS_1,
  float4e2m1: INT32_AS_1,
  int2: INT32_AS_1,
  uint2: INT32_AS_1,
};

/** A decoded tensor with the texts that ONNX keeps on it. */
export interface NamedTensor {
  readonly name: string;
  readonly tensor: Tensor;
}

export function tensorName(parsed: Parsed): string {
  return parsed.string(TENSOR.name) ?? '';
}

export function decodeTensor(message: Message, context: FileContext, sparseName?: string): NamedTensor {
  const parsed = message.parse();
  const name = sparseName ?? tensorName(parsed);
  const dims = decodeDims(parsed, TENSOR.dims, name);
  const dtype = dtypeOfCode(parsed.safeInt(TENSOR.dtype) ?? 0) ?? 'undefined';
  if (parsed.all(TENSOR.segment).length > 0)
    fail('E_UNSUPPORTED', {
      message: 'Segmented tensors are not supported',
      where: `${context.label}, tensor '${name}'`,
      remedy: 'No known exporter writes them; store the tensor whole.',
    });
  const strings =
    dtype === 'string' ? parsed.byteStrings(TENSOR.stringData).map((s) => s.slice()) : undefined;
  if (strings !== undefined && strings.length !== elementsOf({ dtype, dims, data: EMPTY }))
    corrupt(
      message.place,
      `Tensor '${name}' has ${strings.length} strings where its shape calls for another number`,
    );
  const data = strings === undefined ? payload(message, parsed, dtype, dims, name, context) : EMPTY;
  const tensor: Tensor = { dtype, dims, data, ...(strings === undefined ? {} : { strings }) };
  return { name, tensor: setOrigin(tensor, message) };
}

const EMPTY = new BytesData(new Uint8Array(0));

function decodeDims(parsed: Parsed, number: number, name: string): number[] {
  let product = 1;
  return parsed.ints(number).map((dim) => {
    const value = Number(dim);
    product *= Math.max(value, 1);
    if (value < 0 || !Number.isSafeInteger(product))
      corrupt(parsed.message.place, `Tensor '${name}' has an impossible dimension ${dim}`);
    return value;
  });
}

function payload(
  message: Message,
  parsed: Parsed,
  dtype: DType,
  dims: readonly number[],
  name: string,
  context: FileContext,
): TensorData {
  const known = dtype !== 'undefined';
  const expected = byteSize(dtype, countOf(dims));
  if (parsed.int(TENSOR.location) === 1n) {
    const entries = decodeEntries(parsed, TENSOR.external);
    return context.externals === undefined
      ? new UnlocatedData(expected, entries.get('location') ?? '', `${context.label}, tensor '${name}'`)
      : context.externals.resolve(entries, known ? expected : undefined, name);
  }
  const raw = parsed.all(TENSOR.raw).at(-1);
  const layout = STORAGE[dtype];
  const typed = layout === undefined ? [] : parsed.all(layout.field);
  let data: TensorData;
  if (raw !== undefined) {
    expectWire(raw, BYTES);
    data = new FileData(raw.source, raw.body, raw.end - raw.body);
  } else if (layout !== undefined && typed.length > 0) {
    for (const field of typed) if (field.wire !== layout.wire) expectWire(field, BYTES);
    const fixed = layout.wire !== VARINT;
    if (fixed && typed.length === 1)
      data = new FileData(typed[0]!.source, typed[0]!.body, typed[0]!.end - typed[0]!.body);
    else data = new TypedData(typed, countEntries(typed, layout.unit) * layout.unit, layout.unit);
  } else data = EMPTY;
  if (known && data.byteLength !== expected)
    corrupt(
      message.place,
      `Tensor '${name}' (${dtype}[${dims.join(', ')}]) has ${data.byteLength} bytes of data where its shape calls for ${expected}`,
    );
  return data.byteLength <= INLINE_LIMIT ? new BytesData(data.read(0, data.byteLength).slice()) : data;
}

export function decodeSparse(message: Message, context: FileContext): NamedTensor & { sparse: SparseTensor } {
  const parsed = message.parse();
  const valuesMessage = parsed.sub(SPARSE.values);
  const indicesMessage = parsed.sub(SPARSE.indices);
  if (valuesMessage === undefined || indicesMessage === undefined)
    corrupt(message.place, 'A sparse tensor lacks its values or its indices');
  const { name, tensor: values } = decodeTensor(valuesMessage, context);
  const { tensor: indices } = decodeTensor(indicesMessage, context);
  const dims = decodeDims(parsed, SPARSE.dims, name);
  const sparse: SparseTensor = { dims, values, indices };
  setOrigin(sparse, message);
  const tensor: Tensor = { dtype: values.dtype, dims, data: dense(message, sparse, name) };
  return { name, sparse, tensor };
}

/** Indices are flat positions [nnz] or coordinates [nnz, rank]. */
function dense(message: Message, sparse: SparseTensor, name: string): TensorData {
  const { dims, values, indices } = sparse;
  const count = values.dims[0] ?? 0;
  const coordinates = indices.dims.length === 2;
  const rank = coordinates ? dims.length : 1;
  const size = countOf(dims);
  const width = byteSize(values.dtype, 1);
  if (
    indices.dtype !== 'int64' ||
    values.dims.length !== 1 ||
    elementsOf(indices) !== count * rank ||
    byteSize(values.dtype, 2) !== 2 * width
  )
    corrupt(message.place, `Sparse tensor '${name}' has indices that do not fit its values`);
  const bytes = indices.data.read(0, indices.data.byteLength);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const positions = Array.from({ length: count }, (_, i) => {
    let flat = 0;
    for (let axis = 0; axis < rank; axis++) {
      const at = Number(view.getBigInt64((i * rank + axis) * 8, true));
      if (at < 0 || at >= (coordinates ? (dims[axis] as number) : size))
        corrupt(message.place, `Sparse tensor '${name}' has an index out of range`);
      flat = coordinates ? flat * (dims[axis] as number) + at : at;
    }
    return flat;
  });
  return new SparseData(byteSize(values.dtype, size), width, positions, sparse);
}

/** A list of `StringStringEntryProto`; the last of equal keys counts. */
export function decodeEntries(parsed: Parsed, number: number): Map<string, string> {
  const entries = new Map<string, string>();
  for (const message of parsed.subs(number)) {
    const entry = message.parse();
    entries.set(entry.string(ENTRY.key) ?? '', entry.string(ENTRY.value) ?? '');
  }
  return entries;
}
