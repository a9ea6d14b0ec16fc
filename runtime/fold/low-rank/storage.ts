/**
 * How a kernel reads and writes the numbers of a weight: four at a time, or one, as codes that are widened to float32 and
 * rounded back to nearest, ties to even, as `src/halves.ts` does for single numbers.
 */
import { type Code, type FunctionWriter, f32x4, i16x8, i32x4, type Local, V128, v128 } from './assembler.js';

export const KERNEL_DTYPES = ['float32', 'float16', 'bfloat16'] as const;
export type KernelDType = (typeof KERNEL_DTYPES)[number];

export interface Storage {
  /** Bytes of a number. */
  readonly bytes: number;
  /** Codes of four numbers, or of one and three zeros, each in a lane of 32 bits. */
  load(address: Code, offset: number): Code;
  loadOne(address: Code, offset: number): Code;
  store(address: Code, offset: number, codes: Code): Code;
  storeOne(address: Code, offset: number, codes: Code): Code;
  /** Statements around local variables; absent where codes are the numbers themselves. */
  conversion?(write: FunctionWriter): Conversion;
}

export interface Conversion {
  /** Sets `floats` to the numbers of `codes`. */
  widen(codes: Local, floats: Local): Code;
  /** Sets `codes` to those of `floats`. */
  narrow(floats: Local, codes: Local): Code;
}

const float32: Storage = {
  bytes: 4,
  load: v128.load,
  loadOne: v128.loadOne,
  store: v128.store,
  storeOne: v128.storeOne,
};

const halves: Omit<Storage, 'conversion'> = {
  bytes: 2,
  load: v128.load16x4,
  loadOne: v128.loadOne16,
  store: (address, offset, codes) => v128.storeHalf(address, offset, i16x8.narrow(codes, codes)),
  // Lane 0 of 32 bits begins with lane 0 of 16.
  storeOne: v128.storeOne16,
};

/** Bits of float32. */
const SIGN = 0x80000000;
const INFINITY = 0x7f800000;

/** Rounds what is below bit `shift` into it. */
function rounded(bits: Code, shift: number): Code {
  const odd = v128.and(i32x4.shiftRight(bits, shift), i32x4.const(1));
  return i32x4.shiftRight(i32x4.add(i32x4.add(bits, i32x4.const((1 << (shift - 1)) - 1)), odd), shift);
}

const bfloat16: Storage = {
  ...halves,
  conversion: (write) => {
    const nan = write.local(V128);
    return {
      widen: (codes, floats) => floats.set(i32x4.shiftLeft(codes.get, 16)),
      narrow: (floats, codes) => [
        // Rounding could carry a NaN into the sign.
        nan.set(f32x4.differ(floats.get, floats.get)),
        codes.set(
          v128.select(
            v128.or(i32x4.shiftRight(floats.get, 16), i32x4.const(0x40)),
            rounded(floats.get, 16),
            nan.get,
          ),
        ),
      ],
    };
  },
};

const float16: Storage = {
  ...halves,
  conversion: (write) => {
    const [sign, size, code] = [write.local(V128), write.local(V128), write.local(V128)];
    return {
      widen: (codes, floats) => [
        size.set(i32x4.shiftLeft(v128.and(codes.get, i32x4.const(0x7fff)), 13)),
        floats.set(
          v128.or(
            // Exponents are biased by 15 here and by 127 there; subnormal numbers become normal ones.
            f32x4.mul(size.get, i32x4.const((127 + 112) << 23)),
            v128.or(
              v128.and(i32x4.notLess(size.get, i32x4.const(0x7c00 << 13)), i32x4.const(INFINITY)),
              i32x4.shiftLeft(v128.and(codes.get, i32x4.const(0x8000)), 16),
            ),
          ),
        ),
      ],
      narrow: (floats, codes) => [
        sign.set(v128.and(floats.get, i32x4.const(SIGN))),
        size.set(v128.xor(floats.get, sign.get)),
        // Past 65504 this carries into the code of infinity.
        code.set(rounded(i32x4.sub(size.get, i32x4.const(112 << 23)), 13)),
        // A sum of 0.5 and a number below 2⁻¹⁴ rounds it to multiples of 2⁻²⁴, the smallest of float16.
        code.set(
          v128.select(
            i32x4.sub(f32x4.add(size.get, i32x4.const(0x3f000000)), i32x4.const(0x3f000000)),
            code.get,
            i32x4.less(size.get, i32x4.const((127 - 14) << 23)),
          ),
        ),
        code.set(
          v128.select(
            v128.or(
              i32x4.const(0x7c00),
              // Of a NaN, what fits is kept.
              v128.and(
                i32x4.less(i32x4.const(INFINITY), size.get),
                v128.or(i32x4.const(0x200), v128.and(i32x4.shiftRight(size.get, 13), i32x4.const(0x1ff))),
              ),
            ),
            code.get,
            i32x4.notLess(size.get, i32x4.const((127 + 16) << 23)),
          ),
        ),
        codes.set(v128.or(code.get, i32x4.shiftRight(sign.get, 16))),
      ],
    };
  },
};

export const STORAGES: Readonly<Record<KernelDType, Storage>> = { float32, float16, bfloat16 };
