import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FLOAT16_VALUES, narrow, widen } from '../../src/halves.js';
import { decodeNumbers, encodeNumbers, tensorOf } from '../../src/literals.js';
import type { DType } from '../../src/types.js';

const code16 = (dtype: DType, value: number) => {
  const bytes = encodeNumbers(dtype, [value]);
  return bytes[0]! | (bytes[1]! << 8);
};

describe('number encodings', () => {
  it.each([
    [0, 0x0000],
    [-0, 0x8000],
    [1, 0x3c00],
    [0.1, 0x2e66],
    [65504, 0x7bff],
    [65519.99, 0x7bff],
    [65520, 0x7c00],
    [-1e9, 0xfc00],
    [2 ** -14, 0x0400],
    [2 ** -24, 0x0001],
    [2 ** -25, 0x0000],
    [1.5 * 2 ** -25, 0x0001],
    [3 * 2 ** -25, 0x0002],
    // Ties go to even…
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    // … and a double just past a tie is no tie, although float32 would make it one.
    [1 + 2 ** -11 + 2 ** -40, 0x3c01],
    [Number.POSITIVE_INFINITY, 0x7c00],
  ])('float16 of %d', (value, code) => {
    expect(code16('float16', value)).toBe(code);
  });

  it.each([
    [1, 0x3f80],
    [0.1, 0x3dcd],
    [-2.5, 0xc020],
    [1 + 2 ** -8, 0x3f80],
    [1 + 3 * 2 ** -8, 0x3f82],
    [1 + 2 ** -8 + 2 ** -40, 0x3f81],
    [3.4e38, 0x7f80],
    [3.38e38, 0x7f7e],
  ])('bfloat16 of %d', (value, code) => {
    expect(code16('bfloat16', value)).toBe(code);
  });

  it('NaN stays NaN', () => {
    for (const dtype of ['float16', 'bfloat16', 'float32', 'float64', 'float8e4m3fn', 'float8e5m2'] as const)
      expect(decodeNumbers(tensorOf(dtype, [1], [Number.NaN]))[0]).toBeNaN();
  });

  it('every float16 and bfloat16 code survives a round trip', () => {
    const codes = Uint16Array.from({ length: 65536 }, (_, i) => i);
    for (const dtype of ['float16', 'bfloat16'] as const) {
      const values = widen(dtype, codes);
      const back = narrow(dtype, values);
      const wrong = codes.filter((code) => !Number.isNaN(values[code]!) && back[code] !== code);
      expect(wrong).toEqual(new Uint16Array());
    }
  });

  it('rounds to the nearest float16', () => {
    const finite = Array.from(FLOAT16_VALUES()).filter((v) => Number.isFinite(v));
    fc.assert(
      fc.property(fc.double({ min: -65504, max: 65504, noNaN: true }), (value) => {
        const rounded = FLOAT16_VALUES()[code16('float16', value)]!;
        const best = finite.reduce((a, b) => (Math.abs(b - value) < Math.abs(a - value) ? b : a));
        expect(Math.abs(rounded - value)).toBe(Math.abs(best - value));
      }),
      { numRuns: 50 },
    );
  });

  it.each([
    ['float8e4m3fn', 448, 0x7e],
    ['float8e4m3fn', 1, 0x38],
    ['float8e4m3fn', 1000, 0x7e],
    ['float8e4m3fn', 2 ** -9, 0x01],
    ['float8e5m2', 1, 0x3c],
    ['float8e5m2', 57344, 0x7b],
    ['float8e4m3fnuz', 1, 0x40],
    ['float8e4m3fnuz', -0, 0x00],
    ['float8e5m2fnuz', 1, 0x40],
  ] as const)('%s of %d', (dtype, value, code) => {
    expect(encodeNumbers(dtype, [value])).toEqual(new Uint8Array([code]));
  });

  it('packs four-bit integers from the low end', () => {
    expect(encodeNumbers('int4', [-8, 7, -1])).toEqual(new Uint8Array([0x78, 0x0f]));
    expect(decodeNumbers(tensorOf('int4', [3], [-8, 7, -1]))).toEqual([-8, 7, -1]);
    expect(decodeNumbers(tensorOf('uint4', [2], [15, 1]))).toEqual([15, 1]);
    expect(decodeNumbers(tensorOf('float4e2m1', [3], [6, -0.5, 1.5]))).toEqual([6, -0.5, 1.5]);
  });

  it('keeps 64-bit integers whole and refuses numbers that do not fit', () => {
    expect(decodeNumbers(tensorOf('int64', [2], [-(1n << 63n), (1n << 63n) - 1n]))).toEqual([
      -(1n << 63n),
      (1n << 63n) - 1n,
    ]);
    expect(() => encodeNumbers('int8', [128])).toThrow(/128.*int8/);
    expect(() => encodeNumbers('int64', [0.5])).toThrow(/0.5.*int64/);
    expect(() => encodeNumbers('uint64', [-1n])).toThrow(/-1.*uint64/);
  });
});
