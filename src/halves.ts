/** Bit patterns of float16, bfloat16 and the 8- and 4-bit floats; conversions round to nearest, ties to even. */

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/**
 * Bits of a double rounded to float32 "to odd": truncated, with the last bit set when anything was lost. Rounding the
 * result again to a format at least two bits narrower equals rounding the double once.
 */
function oddFloat32Bits(value: number): number {
  f32[0] = value;
  const rounded = f32[0]!;
  let bits = u32[0]!;
  if (rounded === value || Number.isNaN(value) || !Number.isFinite(value)) return bits;
  if (Math.abs(rounded) > Math.abs(value)) bits--;
  return (bits | 1) >>> 0;
}

/** float16 code of float32 bits. */
export function float16FromFloat32Bits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x1ff);
  // 65520 and more round to infinity.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000)
    return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  // 2^-25 and less round to zero.
  if (magnitude <= 0x33000000) return sign;
  const shift = 126 - (magnitude >>> 23);
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const kept = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const tie = 1 << (shift - 1);
  return sign | (kept + (rest > tie || (rest === tie && (kept & 1) === 1) ? 1 : 0));
}

/** bfloat16 code of float32 bits. */
export function bfloat16FromFloat32Bits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function float16FromNumber(value: number): number {
  return float16FromFloat32Bits(oddFloat32Bits(value));
}

export function bfloat16FromNumber(value: number): number {
  return bfloat16FromFloat32Bits(oddFloat32Bits(value));
}

function float16Value(code: number): number {
  const sign = (code & 0x8000) === 0 ? 1 : -1;
  const exponent = (code >> 10) & 0x1f;
  const mantissa = code & 0x3ff;
  if (exponent === 0x1f) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

let float16Values: Float32Array | undefined;

/** Values of all 65536 float16 codes. */
export function FLOAT16_VALUES(): Float32Array {
  float16Values ??= Float32Array.from({ length: 65536 }, (_, code) => float16Value(code));
  return float16Values;
}

/** Widens float16 or bfloat16 codes to float32; `out` may be given to avoid an allocation. */
export function widen(
  dtype: 'float16' | 'bfloat16',
  codes: Uint16Array,
  out: Float32Array = new Float32Array(codes.length),
): Float32Array {
  if (dtype === 'float16') {
    const values = FLOAT16_VALUES();
    for (let i = 0; i < codes.length; i++) out[i] = values[codes[i]!]!;
  } else {
    const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
    for (let i = 0; i < codes.length; i++) bits[i] = codes[i]! << 16;
  }
  return out;
}

/** Rounds float32 numbers to float16 or bfloat16 codes. */
export function narrow(
  dtype: 'float16' | 'bfloat16',
  values: Float32Array,
  out: Uint16Array = new Uint16Array(values.length),
): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const convert = dtype === 'float16' ? float16FromFloat32Bits : bfloat16FromFloat32Bits;
  for (let i = 0; i < bits.length; i++) out[i] = convert(bits[i]!);
  return out;
}

interface SmallFloat {
  readonly exponentBits: number;
  readonly mantissaBits: number;
  readonly bias: number;
  /** What the codes with all exponent bits set mean, and where NaN is. */
  readonly special: 'ieee' | 'one-nan' | 'negative-zero-nan' | 'none';
}

const SMALL_FLOATS = {
  float8e4m3fn: { exponentBits: 4, mantissaBits: 3, bias: 7, special: 'one-nan' },
  float8e4m3fnuz: { exponentBits: 4, mantissaBits: 3, bias: 8, special: 'negative-zero-nan' },
  float8e5m2: { exponentBits: 5, mantissaBits: 2, bias: 15, special: 'ieee' },
  float8e5m2fnuz: { exponentBits: 5, mantissaBits: 2, bias: 16, special: 'negative-zero-nan' },
  float4e2m1: { exponentBits: 2, mantissaBits: 1, bias: 1, special: 'none' },
} as const satisfies Record<string, SmallFloat>;

export interface SmallFloatCodec {
  /** Value of each code. */
  readonly values: readonly number[];
  /** Nearest code, ties to even; finite overflow saturates, as ONNX Cast does by default. */
  encode(value: number): number;
}

function smallValue(format: SmallFloat, code: number): number {
  const { exponentBits, mantissaBits, bias, special } = format;
  const signBit = 1 << (exponentBits + mantissaBits);
  const magnitude = code & (signBit - 1);
  const sign = (code & signBit) === 0 ? 1 : -1;
  const top = (1 << exponentBits) - 1;
  const exponent = magnitude >> mantissaBits;
  const fraction = magnitude & ((1 << mantissaBits) - 1);
  if (special === 'ieee' && exponent === top)
    return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (special === 'one-nan' && magnitude === signBit - 1) return Number.NaN;
  if (special === 'negative-zero-nan' && code === signBit) return Number.NaN;
  const scale = 2 ** (Math.max(exponent, 1) - bias - mantissaBits);
  return sign * (exponent === 0 ? fraction : fraction + (1 << mantissaBits)) * scale;
}

const smallCodecs = new Map<string, SmallFloatCodec>();

/** Table codec of an 8- or 4-bit float format. */
export function smallFloatCodec(name: keyof typeof SMALL_FLOATS): SmallFloatCodec {
  const known = smallCodecs.get(name);
  if (known !== undefined) return known;
  const format: SmallFloat = SMALL_FLOATS[name];
  const signBit = 1 << (format.exponentBits + format.mantissaBits);
  const values = Array.from({ length: 2 * signBit }, (_, code) => smallValue(format, code));
  // Codes of non-negative finite numbers ascend with their values.
  const magnitudes = values.slice(0, signBit).filter((v) => Number.isFinite(v));
  const nan = values.findIndex((v) => Number.isNaN(v));
  const unsignedZero = format.special === 'negative-zero-nan';
  const codec: SmallFloatCodec = {
    values,
    encode(value) {
      if (Number.isNaN(value)) return Math.max(nan, 0);
      const negative = value < 0 || Object.is(value, -0);
      const magnitude = Math.abs(value);
      let low = 0;
      let high = magnitudes.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (magnitudes[middle]! <= magnitude) low = middle;
        else high = middle - 1;
      }
      const next = magnitudes[low + 1];
      if (next !== undefined) {
        const below = magnitude - magnitudes[low]!;
        const above = next - magnitude;
        if (above < below || (above === below && (low & 1) === 1)) low++;
      }
      return negative && !(unsignedZero && low === 0) ? low | signBit : low;
    },
  };
  smallCodecs.set(name, codec);
  return codec;
}
