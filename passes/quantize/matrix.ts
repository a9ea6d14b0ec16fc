/**
 * A quantised weight as it is stored: integer codes in row-major order, and what turns a group of codes into numbers.
 * One description serves everything that reads or writes such weights; nobody else knows the packing of an operator.
 */
import type { Node, Value } from '../../src/graph.js';
import type { DType } from '../../src/types.js';

/** How codes lie in bytes; codes of one byte each need none of it. */
export interface CodePacking {
  readonly bits: 2 | 4 | 8;
  readonly signed: boolean;
  /** The first of the codes in a byte is in its high bits. */
  readonly highFirst: boolean;
}

/**
 * w = (code − zero point) · scale, or w = table[code] · scale, per group.
 * The matrix [rows, columns] is the site's [in, out] or its transpose.
 */
export interface QuantizedMatrix {
  /** For people: `4 bits in blocks of 32`. */
  readonly label: string;
  readonly rows: number;
  readonly columns: number;
  /** Rows are outputs: the matrix is [out, in]. */
  readonly transposed: boolean;
  readonly packing: CodePacking;
  /** Codes from one row to the next; more than `columns` where the last block is padded. */
  readonly stride: number;
  readonly codes: Value;
  /** One number per group, or one for all. */
  readonly scales: Value;
  readonly groups: number;
  group(row: number, column: number): number;
  /** Values of the codes; absent for integers. */
  readonly table?: readonly number[];
  /** One per group, or one for all; absent: `defaultZero`. */
  readonly zeroPoints?: ZeroPoints;
  readonly defaultZero: number;
}

export interface ZeroPoints {
  readonly value: Value;
  /** Packing of integer zero points; undefined for floats. */
  readonly packing?: CodePacking;
  /** Zero points from one row of groups to the next, in bytes' worth of codes: rows are padded to whole bytes. */
  readonly stride: number;
  /** Groups in such a row. */
  readonly perRow: number;
}

/** What a consumer must not touch, and the way out. */
export interface Refusal {
  readonly message: string;
  readonly remedy: string;
}

/** `y = x W (+ bias)` with `x` and `y` floats and W stored as `weight`. */
export interface QuantizedProduct {
  readonly node: Node;
  readonly x: Value;
  readonly y: Value;
  /** Index of the input of `node` that adds a float bias. */
  readonly bias?: number;
  readonly inDim: number;
  readonly outDim: number;
  /** The codes are [out, in]. */
  readonly transposed: boolean;
  /** Index of the input that holds the codes. */
  readonly input: number;
  readonly weight: QuantizedMatrix | Refusal;
}

/** Packing of a tensor whose dtype says what its codes are. */
export function bytePacking(dtype: DType): CodePacking | undefined {
  if (dtype === 'uint8' || dtype === 'int8') return { bits: 8, signed: dtype === 'int8', highFirst: false };
  if (dtype === 'uint4' || dtype === 'int4') return { bits: 4, signed: dtype === 'int4', highFirst: false };
  if (dtype === 'uint2' || dtype === 'int2') return { bits: 2, signed: dtype === 'int2', highFirst: false };
  return undefined;
}

/** The sixteen values of bitsandbytes' 4-bit types, by code (QLoRA, arXiv:2305.14314, appendix E for NF4). */
export const TABLES = {
  nf4: [
    -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
  ],
  fp4: [
    0,
    0.005208333333333333,
    2 / 3,
    1,
    1 / 3,
    0.5,
    1 / 6,
    0.25,
    0,
    -0.005208333333333333,
    -2 / 3,
    -1,
    -1 / 3,
    -0.5,
    -1 / 6,
    -0.25,
  ],
} as const;
