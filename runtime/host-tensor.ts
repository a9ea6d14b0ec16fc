/**
 * Tensors in host memory, the currency of the runtime: sessions, data, checkpoints and files all pass them.
 * Elements are raw little-endian bytes in row-major order, the layout of ONNX `raw_data`, safetensors and ORT alike.
 */
import { fail } from '../src/errors.js';
import { byteSize, type DType } from '../src/types.js';

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
export type TypedArray = NumericArray | BigInt64Array | BigUint64Array;

/** How the elements of a dtype become numbers and back. `bits16` dtypes go through a converter on top of uint16. */
interface Codec {
  readonly view: (buffer: ArrayBufferLike, byteOffset: number, length: number) => TypedArray;
  readonly bytes: number;
  readonly decode?: (bits: number) => number;
  readonly encode?: (value: number) => number;
}

const CODECS: Partial<Record<DType, Codec>> = {
  float32: { bytes: 4, view: (b, o, n) => new Float32Array(b, o, n) },
  float64: { bytes: 8, view: (b, o, n) => new Float64Array(b, o, n) },
  int8: { bytes: 1, view: (b, o, n) => new Int8Array(b, o, n) },
  int16: { bytes: 2, view: (b, o, n) => new Int16Array(b, o, n) },
  int32: { bytes: 4, view: (b, o, n) => new Int32Array(b, o, n) },
  int64: { bytes: 8, view: (b, o, n) => new BigInt64Array(b, o, n) },
  uint8: { bytes: 1, view: (b, o, n) => new Uint8Array(b, o, n) },
  uint16: { bytes: 2, view: (b, o, n) => new Uint16Array(b, o, n) },
  uint32: { bytes: 4, view: (b, o, n) => new Uint32Array(b, o, n) },
  uint64: { bytes: 8, view: (b, o, n) => new BigUint64Array(b, o, n) },
  bool: { bytes: 1, view: (b, o, n) => new Uint8Array(b, o, n), encode: (x) => (x === 0 ? 0 : 1) },
  float16: {
    bytes: 2,
    view: (b, o, n) => new Uint16Array(b, o, n),
    decode: halfToNumber,
    encode: numberToHalf,
  },
  bfloat16: {
    bytes: 2,
    view: (b, o, n) => new Uint16Array(b, o, n),
    decode: bfloatToNumber,
    encode: numberToBfloat,
  },
};

function codecOf(dtype: DType): Codec {
  return (
    CODECS[dtype] ??
    fail('E_UNSUPPORTED', { message: `Tensors of dtype ${dtype} cannot be read as numbers in the runtime` })
  );
}

export function countOf(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

/** The elements as a typed array of the storage type (uint16 for float16 and bfloat16), without a copy when aligned. */
export function storageOf(tensor: HostTensor): TypedArray {
  const codec = codecOf(tensor.dtype);
  const aligned =
    tensor.data.byteOffset % codec.bytes === 0 ? tensor.data : new Uint8Array(tensor.data.slice());
  return codec.view(aligned.buffer, aligned.byteOffset, aligned.byteLength / codec.bytes);
}

/** The elements as numbers: the storage itself for plain numeric dtypes, a converted copy otherwise. */
export function numbersOf(tensor: HostTensor): NumericArray {
  const storage = storageOf(tensor);
  const { decode } = codecOf(tensor.dtype);
  if (storage instanceof BigInt64Array || storage instanceof BigUint64Array)
    return Float64Array.from(storage, Number);
  return decode === undefined ? storage : Float32Array.from(storage, decode);
}

/** A tensor of numbers, each rounded to the nearest value of the dtype (integers must be exact). */
export function tensorOfNumbers(
  dtype: DType,
  dims: readonly number[],
  values: ArrayLike<number | bigint>,
): HostTensor {
  if (values.length !== countOf(dims))
    fail('E_TYPE', {
      message: `${values.length} elements given for ${dtype}[${dims.join(', ')}], which has ${countOf(dims)}`,
    });
  const codec = codecOf(dtype);
  const buffer = new ArrayBuffer(byteSize(dtype, values.length));
  const target = codec.view(buffer, 0, values.length);
  if (target instanceof BigInt64Array || target instanceof BigUint64Array) {
    for (let i = 0; i < values.length; i++) target[i] = BigInt(values[i] ?? 0);
  } else {
    const { encode } = codec;
    for (let i = 0; i < values.length; i++) {
      const value = Number(values[i]);
      target[i] = encode === undefined ? value : encode(value);
    }
  }
  return { dtype, dims: [...dims], data: new Uint8Array(buffer) };
}

export function scalarTensor(dtype: DType, value: number | bigint): HostTensor {
  return tensorOfNumbers(dtype, [], [value]);
}

export function zeroTensor(dtype: DType, dims: readonly number[]): HostTensor {
  return { dtype, dims: [...dims], data: new Uint8Array(byteSize(dtype, countOf(dims))) };
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

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

function bfloatToNumber(bits: number): number {
  scratchBits[0] = bits << 16;
  return scratchFloat[0] ?? 0;
}

/** Round to nearest, ties to even; a NaN stays a quiet NaN. */
function numberToBfloat(value: number): number {
  scratchFloat[0] = value;
  const bits = scratchBits[0] ?? 0;
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Round to nearest, ties to even, straight from float64, so there is no double rounding through float32. */
function numberToHalf(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = Math.max(Math.floor(Math.log2(magnitude)), -14);
  const ulp = 2 ** ((magnitude < 2 ** exponent ? exponent - 1 : exponent) - 10);
  const step = Math.max(ulp, 2 ** -24);
  const units = roundTiesToEven(magnitude / step);
  const rounded = units * step;
  if (rounded < 2 ** -14) return sign | Math.round(rounded / 2 ** -24);
  const e = Math.floor(Math.log2(rounded));
  return sign | ((e + 15) << 10) | Math.round((rounded / 2 ** e - 1) * 1024);
}

function roundTiesToEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}
