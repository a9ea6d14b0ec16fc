/** Differences between two tensors, and the tolerance that rounding explains. */
import { fail } from '../src/errors.js';
import { type Node, walkGraphs, walkNodes } from '../src/graph.js';
import type { Model } from '../src/model.js';
import { type DType, isFloat } from '../src/types.js';
import { type HostTensor, numbersOf } from './host-tensor.js';

export interface Difference {
  /** max |a − b|. NaN at the same place in both counts as equal, anywhere else as infinite. */
  readonly maxAbs: number;
  /** maxAbs over the scale max |a| (over 1 when `a` is all zero). */
  readonly relative: number;
  /** Cosine of the angle between the two as vectors; 1 for equal ones, zero vectors included. */
  readonly cosine: number;
  /** Share of rows (last axis) whose largest element is at the same place; undefined for rows of one element. */
  readonly top1: number | undefined;
}

/** Compares tensors of equal shape. @throws E_VERIFY when dtype or shape differ. */
export function difference(a: HostTensor, b: HostTensor, where: string): Difference {
  if (a.dtype !== b.dtype || a.dims.length !== b.dims.length || a.dims.some((d, i) => d !== b.dims[i]))
    fail('E_VERIFY', {
      message: `The models disagree on the type: ${a.dtype}[${a.dims.join(', ')}] against ${b.dtype}[${b.dims.join(', ')}]`,
      where,
    });
  const x = numbersOf(a);
  const y = numbersOf(b);
  let maxAbs = 0;
  let scale = 0;
  let xx = 0;
  let yy = 0;
  let xy = 0;
  for (let i = 0; i < x.length; i++) {
    const p = x[i] ?? 0;
    const q = y[i] ?? 0;
    if (Object.is(p, q) || p === q) {
      if (!Number.isFinite(p)) continue;
    } else {
      const gap = Math.abs(p - q);
      maxAbs = Number.isNaN(gap) ? Number.POSITIVE_INFINITY : Math.max(maxAbs, gap);
    }
    scale = Math.max(scale, Math.abs(p));
    xx += p * p;
    yy += q * q;
    xy += p * q;
  }
  const norm = Math.sqrt(xx) * Math.sqrt(yy);
  return {
    maxAbs,
    relative: maxAbs === 0 ? 0 : maxAbs / (scale === 0 ? 1 : scale),
    cosine: norm === 0 ? (xx === yy ? 1 : 0) : xy / norm,
    top1: top1Agreement(x, y, a.dims.at(-1) ?? 1),
  };
}

function top1Agreement(x: ArrayLike<number>, y: ArrayLike<number>, width: number): number | undefined {
  if (width < 2 || x.length === 0) return undefined;
  let same = 0;
  const rows = x.length / width;
  for (let row = 0; row < rows; row++)
    if (argmax(x, row * width, width) === argmax(y, row * width, width)) same++;
  return same / rows;
}

function argmax(values: ArrayLike<number>, start: number, width: number): number {
  let best = 0;
  for (let i = 1; i < width; i++) if ((values[start + i] ?? 0) > (values[start + best] ?? 0)) best = i;
  return best;
}

/** Largest relative error of rounding once to the dtype. */
const UNIT_ROUNDOFF: Partial<Record<DType, number>> = {
  float64: 2 ** -53,
  float32: 2 ** -24,
  float16: 2 ** -11,
  bfloat16: 2 ** -8,
};

/** Ops that sum products, where rounding errors of a network come from, and how many such sums follow one another in them. */
const CONTRACTIONS: Readonly<Record<string, number>> = {
  MatMul: 1,
  Gemm: 1,
  Conv: 1,
  ConvTranspose: 1,
  Einsum: 1,
  MatMulInteger: 1,
  QLinearMatMul: 1,
  FusedMatMul: 1,
  FusedGemm: 1,
  FusedConv: 1,
  MatMulNBits: 1,
  MatMulBnb4: 1,
  DynamicQuantizeMatMul: 1,
  MatMulIntegerToFloat: 1,
  // Scores and values.
  Attention: 2,
  MultiHeadAttention: 2,
  GroupQueryAttention: 2,
  // With the projection before them.
  'com.microsoft.Attention': 3,
  QAttention: 3,
};

function contractionsOf({ domain, op }: Node): number {
  return CONTRACTIONS[`${domain}.${op}`] ?? CONTRACTIONS[op] ?? 0;
}

/**
 * Relative tolerance for outputs of two ways to compute the same function: c·u·√(K·L). u is the unit roundoff of the
 * coarsest float dtype in the models, K the longest weight axis (a sum of K rounded terms is off by u·√K in the
 * random-walk model), L the number of contractions in a chain (their errors add up likewise), c = 4 standard deviations.
 */
export function defaultTolerance(...models: readonly Model[]): number {
  let roundoff = UNIT_ROUNDOFF.float64 ?? 0;
  let longest = 1;
  let contractions = 1;
  for (const model of models) {
    const note = (dtype: DType) => {
      roundoff = Math.max(roundoff, UNIT_ROUNDOFF[dtype] ?? 0);
    };
    for (const graph of walkGraphs(model.graph))
      for (const { tensor } of graph.initializers)
        if (tensor !== undefined && isFloat(tensor.dtype) && tensor.dims.length > 1) {
          note(tensor.dtype);
          longest = Math.max(longest, ...tensor.dims.slice(-2));
        }
    for (const { type } of [...model.graph.inputs, ...model.graph.outputs])
      if (type?.kind === 'tensor' && isFloat(type.dtype)) note(type.dtype);
    let count = 0;
    for (const node of walkNodes(model.graph)) count += contractionsOf(node);
    contractions = Math.max(contractions, count);
  }
  return 4 * roundoff * Math.sqrt(longest * contractions);
}
