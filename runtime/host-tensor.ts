/**
 * Tensors in host memory, the currency of the runtime: sessions, data, checkpoints and files all pass them.
 * Elements are raw little-endian bytes in row-major order, the layout of ONNX `raw_data`, safetensors and ORT alike.
 */
import { fail } from '../src/errors.js';
import { widen } from '../src/halves.js';
import { encodeNumbers, type NumberLike } from '../src/literals.js';
import type { Tensor } from '../src/tensor.js';
import { byteSize, countOf, type DType } from '../src/types.js';

export interface HostTensor {
  readonly dtype: DType;
  readonly dims: readonly number[];
  /** Packed little-endian elements; `byteSize(dtype, product(dims))` bytes. */
  readonly data: Uint8Array;
}

export type NumericArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | Uint8Array
  | Uint16Array
  | Uint32Array;

/** How the bytes of a dtype are seen as numbers; without a copy where JavaScript has the type. */
interface Reader {
  readonly bytes: number;
  readonly read: (buffer: ArrayBufferLike, byteOffset: number, length: number) => NumericArray;
}

const READERS: Partial<Record<DType, Reader>> = {
  float32: { bytes: 4, read: (b, o, n) => new Float32Array(b, o, n) },
  float64: { bytes: 8, read: (b, o, n) => new Float64Array(b, o, n) },
  float16: { bytes: 2, read: (b, o, n) => widen('float16', new Uint16Array(b, o, n)) },
  bfloat16: { bytes: 2, read: (b, o, n) => widen('bfloat16', new Uint16Array(b, o, n)) },
  int8: { bytes: 1, read: (b, o, n) => new Int8Array(b, o, n) },
  int16: { bytes: 2, read: (b, o, n) => new Int16Array(b, o, n) },
  int32: { bytes: 4, read: (b, o, n) => new Int32Array(b, o, n) },
  int64: { bytes: 8, read: (b, o, n) => Float64Array.from(new BigInt64Array(b, o, n), Number) },
  uint8: { bytes: 1, read: (b, o, n) => new Uint8Array(b, o, n) },
  uint16: { bytes: 2, read: (b, o, n) => new Uint16Array(b, o, n) },
  uint32: { bytes: 4, read: (b, o, n) => new Uint32Array(b, o, n) },
  uint64: { bytes: 8, read: (b, o, n) => Float64Array.from(new BigUint64Array(b, o, n), Number) },
  bool: { bytes: 1, read: (b, o, n) => new Uint8Array(b, o, n) },
};

/** The elements as numbers: a view of the bytes for plain dtypes, a converted copy for halves and 64-bit integers. */
export function numbersOf(tensor: HostTensor): NumericArray {
  const reader =
    READERS[tensor.dtype] ??
    fail('E_UNSUPPORTED', {
      message: `Tensors of dtype ${tensor.dtype} cannot be read as numbers in the runtime`,
    });
  const { data } = tensor.data.byteOffset % reader.bytes === 0 ? tensor : { data: tensor.data.slice() };
  return reader.read(data.buffer, data.byteOffset, data.byteLength / reader.bytes);
}

/** A tensor of numbers, each rounded once to the dtype; integers out of range are an E_TYPE error. */
export function tensorOfNumbers(
  dtype: DType,
  dims: readonly number[],
  values: ArrayLike<NumberLike>,
): HostTensor {
  if (values.length !== countOf(dims))
    fail('E_TYPE', {
      message: `${values.length} elements given for ${dtype}[${dims.join(', ')}], which has ${countOf(dims)}`,
    });
  return { dtype, dims: [...dims], data: encodeNumbers(dtype, values) };
}

export function scalarTensor(dtype: DType, value: number | bigint): HostTensor {
  return tensorOfNumbers(dtype, [], [value]);
}

/** A tensor with every element `value`. */
export function filledTensor(dtype: DType, dims: readonly number[], value: number): HostTensor {
  const count = countOf(dims);
  const data =
    value === 0
      ? new Uint8Array(byteSize(dtype, count))
      : encodeNumbers(dtype, new Float64Array(count).fill(value));
  return { dtype, dims: [...dims], data };
}

/** Reads the payload behind a handle. */
export async function loadTensor({ dtype, dims, data }: Tensor): Promise<HostTensor> {
  if (data.stream === undefined) return { dtype, dims, data: data.inline ?? data.read(0, data.byteLength) };
  const bytes = new Uint8Array(data.byteLength);
  let at = 0;
  for await (const chunk of data.stream()) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return { dtype, dims, data: bytes };
}

/** The single number of a one-element tensor. */
export function scalarOf(tensor: HostTensor): number {
  return (
    numbersOf(tensor)[0] ?? fail('E_TYPE', { message: 'A scalar was expected, the tensor has no elements' })
  );
}

/** Index of the first NaN or infinite element, or −1. */
export function firstNonFinite(tensor: HostTensor): number {
  const values = numbersOf(tensor);
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return i;
  return -1;
}
