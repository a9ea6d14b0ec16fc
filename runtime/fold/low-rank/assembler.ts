/**
 * As much of a WebAssembly assembler as one numeric function needs: instructions are lists of bytes, nested as it suits
 * the writer. Encodings are those of the core specification 2.0 (https://webassembly.github.io/spec/core/binary/).
 */

/** Instructions in order. */
export type Code = readonly (number | Code)[];

export const I32 = 0x7f;
export const V128 = 0x7b;
export type ValueType = typeof I32 | typeof V128;
/** Limits of a memory that has a maximum and is of several threads (proposal of threads). */
const SHARED = 0x03;

/** LEB128 of a number from 0 to 2³² − 1. */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let left = value;
  for (; left > 0x7f; left = Math.floor(left / 128)) bytes.push((left & 0x7f) | 0x80);
  bytes.push(left);
  return bytes;
}

/** LEB128 of a 32-bit number with a sign. */
function signed(value: number): number[] {
  const bytes: number[] = [];
  for (let left = value; ; left >>= 7) {
    const low = left & 0x7f;
    // The last byte carries the sign in its bit 6.
    if (left >> 6 === 0 || left >> 6 === -1) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

function simd(op: number, ...immediates: number[]): Code {
  return [0xfd, unsigned(op), immediates];
}

/** Offset of a memory access; the alignment is a hint and left at one byte. */
function at(offset: number): Code {
  return [0, unsigned(offset)];
}

export const i32 = {
  const: (value: number): Code => [0x41, signed(value)],
  add: (a: Code, b: Code): Code => [a, b, 0x6a],
  sub: (a: Code, b: Code): Code => [a, b, 0x6b],
  mul: (a: Code, b: Code): Code => [a, b, 0x6c],
  /** a < b, with signs. */
  less: (a: Code, b: Code): Code => [a, b, 0x48],
};

const unary =
  (op: number) =>
  (value: Code): Code => [value, simd(op)];

const binary =
  (op: number) =>
  (a: Code, b: Code): Code => [a, b, simd(op)];

/** By a number of bits. */
const shift =
  (op: number) =>
  (value: Code, bits: number): Code => [value, i32.const(bits), simd(op)];

const load =
  (op: number) =>
  (address: Code, offset: number): Code => [address, simd(op), at(offset)];

const storeLane0 =
  (op: number) =>
  (address: Code, offset: number, value: Code): Code => [address, value, simd(op), at(offset), 0];

const ZERO: Code = [simd(0x0c), new Array<number>(16).fill(0)];

export const v128 = {
  zero: ZERO,
  load: load(0x00),
  store: (address: Code, offset: number, value: Code): Code => [address, value, simd(0x0b), at(offset)],
  /** Four numbers of 16 bits without sign, each in 32. */
  load16x4: load(0x04),
  /** Lanes of 32 bits alike. */
  splat: load(0x09),
  /** 32 or 16 bits into lane 0, zeros into the others. */
  loadOne: load(0x5c),
  loadOne16: (address: Code, offset: number): Code => [address, ZERO, simd(0x55), at(offset), 0],
  /** Lane 0 alone, of 64, 32 or 16 bits. */
  storeHalf: storeLane0(0x5b),
  storeOne: storeLane0(0x5a),
  storeOne16: storeLane0(0x59),
  and: binary(0x4e),
  or: binary(0x50),
  xor: binary(0x51),
  /** Bits of `a` where those of `mask` are set, of `b` elsewhere. */
  select: (a: Code, b: Code, mask: Code): Code => [a, b, mask, simd(0x52)],
  /** Lanes 2 and 3 of a pair of floats in front. */
  upperHalf: (value: Code): Code => [
    value,
    value,
    simd(0x0d, ...Array.from({ length: 16 }, (_, i) => (i + 8) % 16)),
  ],
};

export const f32x4 = { add: binary(0xe4), sub: binary(0xe5), mul: binary(0xe6), differ: binary(0x42) };
export const f64x2 = { add: binary(0xf0), ofLowerFloats: unary(0x5f) };
/** Lanes of 32 bits from 0 to 2¹⁶ − 1 as 16 bits. */
export const i16x8 = { narrow: binary(0x86) };
export const i32x4 = {
  const: (value: number): Code => [i32.const(value | 0), simd(0x11)],
  add: binary(0xae),
  sub: binary(0xb1),
  shiftLeft: shift(0xab),
  /** Zeros come in. */
  shiftRight: shift(0xad),
  /** With signs: −1 where it holds, 0 elsewhere. */
  less: binary(0x39),
  notLess: binary(0x3f),
};

/** Repeats while a condition holds. */
export function whileLoop(condition: Code, body: Code): Code {
  const [block, loop, end, empty] = [0x02, 0x03, 0x0b, 0x40];
  const [not, branchIf, branch] = [0x45, 0x0d, 0x0c];
  return [block, empty, loop, empty, condition, not, branchIf, 1, body, branch, 0, end, end];
}

/** A variable of a function. */
export interface Local {
  readonly get: Code;
  set(value: Code): Code;
}

/** A function of integer parameters and no result, while it is written. */
export class FunctionWriter {
  readonly params: readonly Local[];
  readonly #locals: ValueType[] = [];

  constructor(readonly arity: number) {
    this.params = Array.from({ length: arity }, (_, index) => localAt(index));
  }

  local(type: ValueType): Local {
    this.#locals.push(type);
    return localAt(this.arity + this.#locals.length - 1);
  }

  /**
   * A module that imports a memory that threads share, `env.memory`, and exports the function as `run`.
   * @param maximum pages that the memory may grow to
   */
  module(body: Code, maximum: number): Uint8Array {
    const locals = this.#locals.map((type) => [1, type]);
    const code = flat([unsigned(locals.length), locals, body, 0x0b]);
    const sections: [number, Code][] = [
      [1, [1, 0x60, unsigned(this.arity), new Array<number>(this.arity).fill(I32), 0]],
      [2, [1, text('env'), text('memory'), 2, SHARED, unsigned(1), unsigned(maximum)]],
      [3, [1, 0]],
      [7, [1, text('run'), 0, 0]],
      [10, [1, unsigned(code.length), code]],
    ];
    const header = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
    return Uint8Array.from([header, ...sections.map(([id, content]) => section(id, content))].flat());
  }
}

function localAt(index: number): Local {
  return { get: [0x20, unsigned(index)], set: (value) => [value, 0x21, unsigned(index)] };
}

function section(id: number, content: Code): number[] {
  const bytes = flat(content);
  return [id, ...unsigned(bytes.length), ...bytes];
}

function text(name: string): Code {
  return [unsigned(name.length), [...name].map((letter) => letter.charCodeAt(0))];
}

function flat(code: Code): number[] {
  return (code as (number | Code)[]).flat(Number.POSITIVE_INFINITY as 1) as number[];
}
