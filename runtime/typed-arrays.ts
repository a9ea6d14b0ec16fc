/** The typed arrays that JavaScript's runtimes of ONNX take, by dtype: float16 as bit patterns, booleans as bytes. */
import type { DType } from '../src/types.js';

interface Arrays {
  readonly float32: Float32Array;
  readonly float64: Float64Array;
  readonly float16: Uint16Array;
  readonly int8: Int8Array;
  readonly int16: Int16Array;
  readonly int32: Int32Array;
  readonly int64: BigInt64Array;
  readonly uint8: Uint8Array;
  readonly uint16: Uint16Array;
  readonly uint32: Uint32Array;
  readonly uint64: BigUint64Array;
  readonly bool: Uint8Array;
}

/** Dtypes that have a typed array. */
export type ArrayDType = keyof Arrays;

interface Constructor<T> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): T;
}

const CONSTRUCTORS: { readonly [D in ArrayDType]: Constructor<Arrays[D]> } = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};

export function hasArray(dtype: DType): dtype is ArrayDType {
  return Object.hasOwn(CONSTRUCTORS, dtype);
}

/** Packed elements as their array: a view where the bytes are aligned for it, a copy elsewhere. */
export function typedArray<D extends ArrayDType>(dtype: D, bytes: Uint8Array): Arrays[D] {
  const TypedArray = CONSTRUCTORS[dtype];
  const { BYTES_PER_ELEMENT: size } = TypedArray;
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
  return new TypedArray(buffer, byteOffset, byteLength / size);
}
