/** Element types, dimensions and types of values, as in the ONNX IR (`TensorProto.DataType`, `TypeProto`). */

/** ONNX `TensorProto.DataType` numbers by our names. */
export const DTYPE_CODES = {
  undefined: 0,
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
  complex64: 14,
  complex128: 15,
  bfloat16: 16,
  float8e4m3fn: 17,
  float8e4m3fnuz: 18,
  float8e5m2: 19,
  float8e5m2fnuz: 20,
  uint4: 21,
  int4: 22,
  float4e2m1: 23,
  float8e8m0: 24,
  uint2: 25,
  int2: 26,
} as const;

export type DType = keyof typeof DTYPE_CODES;

const DTYPE_BY_CODE: ReadonlyMap<number, DType> = new Map(
  Object.entries(DTYPE_CODES).map(([name, code]) => [code, name as DType]),
);

/** The dtype of an ONNX code, or undefined for a code newer than this table. */
export function dtypeOfCode(code: number): DType | undefined {
  return DTYPE_BY_CODE.get(code);
}

const BITS: Readonly<Record<DType, number>> = {
  undefined: 0,
  float32: 32,
  uint8: 8,
  int8: 8,
  uint16: 16,
  int16: 16,
  int32: 32,
  int64: 64,
  string: 0,
  bool: 8,
  float16: 16,
  float64: 64,
  uint32: 32,
  uint64: 64,
  complex64: 64,
  complex128: 128,
  bfloat16: 16,
  float8e4m3fn: 8,
  float8e4m3fnuz: 8,
  float8e5m2: 8,
  float8e5m2fnuz: 8,
  uint4: 4,
  int4: 4,
  float4e2m1: 4,
  float8e8m0: 8,
  uint2: 2,
  int2: 2,
};

/** Bytes of `count` packed elements in `raw_data` layout; 0 for strings, which have no fixed size. */
export function byteSize(dtype: DType, count: number): number {
  return Math.ceil((BITS[dtype] * count) / 8);
}

/** Dtypes a gradient can flow through. */
export function isFloat(dtype: DType): boolean {
  return dtype === 'float32' || dtype === 'float16' || dtype === 'bfloat16' || dtype === 'float64';
}

/** A dimension: a number, a symbol (or an expression over symbols in canonical form), or unknown. */
export type Dim = number | string | null;
export type Shape = readonly Dim[];

/** A tensor type; `shape` is null when even the rank is unknown. */
export interface TensorType {
  readonly kind: 'tensor';
  readonly dtype: DType;
  readonly shape: Shape | null;
}

export type ValueType =
  | TensorType
  | { readonly kind: 'sparse'; readonly dtype: DType; readonly shape: Shape | null }
  | { readonly kind: 'sequence'; readonly element: ValueType }
  | { readonly kind: 'optional'; readonly element: ValueType }
  | { readonly kind: 'map'; readonly key: DType; readonly value: ValueType }
  | { readonly kind: 'opaque'; readonly domain: string; readonly name: string };

export function tensorType(dtype: DType, shape: Shape | null): TensorType {
  return { kind: 'tensor', dtype, shape };
}

/** Number of elements of known dims: their product, 1 for a scalar. */
export function countOf(dims: readonly number[]): number {
  return dims.reduce((count, dim) => count * dim, 1);
}

/** Number of elements of a shape, or undefined when a dimension is not a number. */
export function elementCount(shape: Shape | null): number | undefined {
  if (shape === null) return undefined;
  let count = 1;
  for (const dim of shape) {
    if (typeof dim !== 'number') return undefined;
    count *= dim;
  }
  return count;
}

/** `float32[batch, 128, ?]`: the spelling of types in messages and tables. */
export function formatType(type: ValueType | undefined): string {
  if (type === undefined) return '?';
  switch (type.kind) {
    case 'tensor':
    case 'sparse': {
      const shape = type.shape === null ? '[…]' : `[${type.shape.map((d) => d ?? '?').join(', ')}]`;
      return `${type.kind === 'sparse' ? 'sparse ' : ''}${type.dtype}${shape}`;
    }
    case 'sequence':
    case 'optional':
      return `${type.kind}(${formatType(type.element)})`;
    case 'map':
      return `map(${type.key}, ${formatType(type.value)})`;
    case 'opaque':
      return `opaque(${type.domain}.${type.name})`;
  }
}
