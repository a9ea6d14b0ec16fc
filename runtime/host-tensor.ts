/**
 * Tensors in host memory, the currency of the runtime: sessions, data, checkpoints and files all pass them.
 * Elements are raw little-endian bytes in row-major order, the layout of ONNX `raw_data`, safetensors and ORT alike.
 */
import { fail } from '../src/errors.js';
import { widen } from '../src/halves.js';
import { encodeNumbers, type NumberLike } from '../src/literals.js';
import type { Tensor } from '../src/tensor.js';
import { byteSize, countOf, type DType } from '../src/types.js';
import { hasArray, typedArray } from './typed-arrays.js';

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

/** Dtypes whose numbers are no typed array's. */
const CONVERTED: Partial<Record<DType, (bytes: Uint8Array) => NumericArray>> = {
  float16: (bytes) => widen('float16', typedArray('float16', bytes)),
  bfloat16: (bytes) => widen('bfloat16', typedArray('uint16', bytes)),
  int64: (bytes) => Float64Array.from(typedArray('int64', bytes), Number),
  uint64: (bytes) => Float64Array.from(typedArray('uint64', bytes), Number),
};

/** The elements as numbers: a view of the bytes for plain dtypes, a converted copy for halves and 64-bit integers. */
export function numbersOf({ dtype, data }: HostTensor): NumericArray {
  const convert = CONVERTED[dtype];
  if (convert !== undefined) return convert(data);
  return hasArray(dtype)
    ? (typedArray(dtype, data) as NumericArray)
    : fail('E_UNSUPPORTED', {
        message: `Tensors of dtype ${dtype} cannot be read as numbers in the runtime`,
      });
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
