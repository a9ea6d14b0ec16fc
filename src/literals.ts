/**
 * Numbers to tensor bytes and back. Rounding is to nearest, ties to even, in one step from the double that JavaScript
 * holds; integers out of range are errors, never wrapped.
 */
import { fail } from './errors.js';
import { bfloat16FromNumber, FLOAT16_VALUES, float16FromNumber, smallFloatCodec } from './halves.js';
import { type Tensor, tensorOfBytes } from './tensor.js';
import { byteSize, countOf, type DType } from './types.js';

export type NumberLike = number | bigint | boolean;

interface Codec {
  encode(numbers: ArrayLike<NumberLike>): Uint8Array;
  decode(bytes: Uint8Array, count: number): number[] | bigint[];
}

type TypedArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array;

/** A copy of the bytes at an offset that typed arrays of any width accept. */
function aligned(bytes: Uint8Array, width: number): ArrayBuffer {
  const copy = new Uint8Array(Math.ceil(bytes.byteLength / width) * width);
  copy.set(bytes);
  return copy.buffer;
}

function bytesOf(array: TypedArray | BigInt64Array | BigUint64Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function floats(create: {
  new (length: number): Float32Array | Float64Array;
  new (b: ArrayBuffer): Float32Array | Float64Array;
}): Codec {
  return {
    encode(numbers) {
      const out = new create(numbers.length);
      for (let i = 0; i < out.length; i++) out[i] = Number(numbers[i]);
      return bytesOf(out);
    },
    decode: (bytes, count) => Array.from(new create(aligned(bytes, 8)).subarray(0, count)),
  };
}

function outOfRange(value: NumberLike, dtype: string): never {
  return fail('E_TYPE', {
    message: `The number ${value} is not representable as ${dtype}`,
    remedy: 'Use a whole number in range, or a value of another dtype',
  });
}

function integers(
  create: { new (length: number): TypedArray; new (b: ArrayBuffer): TypedArray },
  dtype: string,
  min: number,
  max: number,
): Codec {
  return {
    encode(numbers) {
      const out = new create(numbers.length);
      for (let i = 0; i < out.length; i++) {
        const value = Number(numbers[i]);
        if (!Number.isInteger(value) || value < min || value > max) outOfRange(numbers[i]!, dtype);
        out[i] = value;
      }
      return bytesOf(out);
    },
    decode: (bytes, count) => Array.from(new create(aligned(bytes, 8)).subarray(0, count)),
  };
}

function bigIntegers(
  create: {
    new (length: number): BigInt64Array | BigUint64Array;
    new (b: ArrayBuffer): BigInt64Array | BigUint64Array;
  },
  dtype: string,
  min: bigint,
  max: bigint,
): Codec {
  return {
    encode(numbers) {
      const out = new create(numbers.length);
      for (let i = 0; i < out.length; i++) {
        const raw = numbers[i]!;
        if (typeof raw === 'number' && !Number.isInteger(raw)) outOfRange(raw, dtype);
        const value = BigInt(raw);
        if (value < min || value > max) outOfRange(raw, dtype);
        out[i] = value;
      }
      return bytesOf(out);
    },
    decode: (bytes, count) => Array.from(new create(aligned(bytes, 8)).subarray(0, count)),
  };
}

/** Elements of `bits` < 8 packed from the low end of each byte. */
function packed(
  dtype: string,
  bits: number,
  signed: boolean,
  table?: ReturnType<typeof smallFloatCodec>,
): Codec {
  const perByte = 8 / bits;
  const mask = (1 << bits) - 1;
  const [min, max] = signed ? [-(1 << (bits - 1)), (1 << (bits - 1)) - 1] : [0, mask];
  return {
    encode(numbers) {
      const out = new Uint8Array(Math.ceil(numbers.length / perByte));
      for (let i = 0; i < numbers.length; i++) {
        const value = Number(numbers[i]);
        if (table === undefined && (!Number.isInteger(value) || value < min || value > max))
          outOfRange(numbers[i]!, dtype);
        const code = table === undefined ? value & mask : table.encode(value);
        out[Math.floor(i / perByte)]! |= code << ((i % perByte) * bits);
      }
      return out;
    },
    decode(bytes, count) {
      const out: number[] = [];
      for (let i = 0; i < count; i++) {
        const code = (bytes[Math.floor(i / perByte)]! >> ((i % perByte) * bits)) & mask;
        if (table !== undefined) out.push(table.values[code]!);
        else out.push(signed && code > max ? code - (1 << bits) : code);
      }
      return out;
    },
  };
}

const half: Codec = {
  encode(numbers) {
    const out = new Uint16Array(numbers.length);
    for (let i = 0; i < out.length; i++) out[i] = float16FromNumber(Number(numbers[i]));
    return bytesOf(out);
  },
  decode(bytes, count) {
    const codes = new Uint16Array(aligned(bytes, 2));
    const values = FLOAT16_VALUES();
    const out = new Array<number>(count);
    for (let i = 0; i < count; i++) out[i] = values[codes[i]!]!;
    return out;
  },
};

const brain: Codec = {
  encode(numbers) {
    const out = new Uint16Array(numbers.length);
    for (let i = 0; i < out.length; i++) out[i] = bfloat16FromNumber(Number(numbers[i]));
    return bytesOf(out);
  },
  decode(bytes, count) {
    const codes = new Uint16Array(aligned(bytes, 2));
    const wide = new Uint32Array(count);
    for (let i = 0; i < count; i++) wide[i] = codes[i]! << 16;
    return Array.from(new Float32Array(wide.buffer));
  },
};

function smallFloat(name: Parameters<typeof smallFloatCodec>[0]): Codec {
  const codec = () => smallFloatCodec(name);
  return {
    encode(numbers) {
      const table = codec();
      return Uint8Array.from({ length: numbers.length }, (_, i) => table.encode(Number(numbers[i])));
    },
    decode(bytes, count) {
      const { values } = codec();
      return Array.from({ length: count }, (_, i) => values[bytes[i]!]!);
    },
  };
}

const bool: Codec = {
  encode: (numbers) =>
    Uint8Array.from({ length: numbers.length }, (_, i) => (Number(numbers[i]) === 0 ? 0 : 1)),
  decode: (bytes, count) => Array.from(bytes.subarray(0, count)),
};

const CODECS: Readonly<Partial<Record<DType, Codec>>> = {
  float32: floats(Float32Array),
  float64: floats(Float64Array),
  float16: half,
  bfloat16: brain,
  bool,
  int8: integers(Int8Array, 'int8', -128, 127),
  uint8: integers(Uint8Array, 'uint8', 0, 255),
  int16: integers(Int16Array, 'int16', -32768, 32767),
  uint16: integers(Uint16Array, 'uint16', 0, 65535),
  int32: integers(Int32Array, 'int32', -(2 ** 31), 2 ** 31 - 1),
  uint32: integers(Uint32Array, 'uint32', 0, 2 ** 32 - 1),
  int64: bigIntegers(BigInt64Array, 'int64', -(1n << 63n), (1n << 63n) - 1n),
  uint64: bigIntegers(BigUint64Array, 'uint64', 0n, (1n << 64n) - 1n),
  int4: packed('int4', 4, true),
  uint4: packed('uint4', 4, false),
  int2: packed('int2', 2, true),
  uint2: packed('uint2', 2, false),
  float4e2m1: packed('float4e2m1', 4, false, smallFloatCodec('float4e2m1')),
  float8e4m3fn: smallFloat('float8e4m3fn'),
  float8e4m3fnuz: smallFloat('float8e4m3fnuz'),
  float8e5m2: smallFloat('float8e5m2'),
  float8e5m2fnuz: smallFloat('float8e5m2fnuz'),
};

function codecOf(dtype: DType): Codec {
  return (
    CODECS[dtype] ??
    fail('E_UNSUPPORTED', { message: `Numbers of dtype ${dtype} cannot be encoded or decoded` })
  );
}

/** Bytes of numbers in ONNX `raw_data` layout. `E_TYPE` for integers out of range, `E_UNSUPPORTED` for other dtypes. */
export function encodeNumbers(dtype: DType, numbers: ArrayLike<NumberLike>): Uint8Array {
  return codecOf(dtype).encode(numbers);
}

/** Numbers of `count` elements in `raw_data` layout: bigint for int64 and uint64, number otherwise (bool: 0 or 1). */
export function decodeBytes(dtype: DType, bytes: Uint8Array, count: number): number[] | bigint[] {
  const need = byteSize(dtype, count);
  if (bytes.byteLength < need)
    fail('E_INVALID_DATA', {
      message: `A ${dtype} payload of ${bytes.byteLength} bytes is short of ${need}`,
    });
  return codecOf(dtype).decode(bytes, count);
}

/** The numbers of a tensor. Reads the payload: for passes only on small constants. */
export function decodeNumbers(tensor: Tensor): number[] | bigint[] {
  const bytes = tensor.data.inline ?? tensor.data.read(0, tensor.data.byteLength);
  return decodeBytes(tensor.dtype, bytes, countOf(tensor.dims));
}

/** A tensor of numbers held in memory. */
export function tensorOf(dtype: DType, dims: readonly number[], numbers: ArrayLike<NumberLike>): Tensor {
  return tensorOfBytes(dtype, dims, encodeNumbers(dtype, numbers));
}
