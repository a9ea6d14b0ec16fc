/**
 * Masks as numbers that are added to the scores: 0 where a query looks, far below any score where it does not. Adding
 * costs the gradient nothing; masks of few elements are added up before they meet the scores.
 */
import { sameDim } from '../../../../src/dims.js';
import type { Value } from '../../../../src/graph.js';
import type { DType } from '../../../../src/types.js';
import type { Shapes, Size } from '../../../grad/shapes.js';
import { refuse } from '../../expansion.js';

/** Finite stand-in for -∞, so that a row without any key stays free of NaN; twice it is still finite. */
const LOWEST: Partial<Record<DType, number>> = { float16: -3e4 };

export function lowest(dtype: DType): number {
  return LOWEST[dtype] ?? -1e30;
}

/** 0 where `keep` holds, `filter` elsewhere. */
export function bias(shapes: Shapes, keep: Value, dtype: DType, filter = lowest(dtype)): Value {
  const { b } = shapes;
  return b.op.Where(keep, b.scalar(0, dtype), b.scalar(filter, dtype));
}

/** 0, 1, …, size - 1 as int64[size]. */
export function range(shapes: Shapes, size: Size): Value {
  const { b } = shapes;
  const limit = typeof size === 'number' ? b.scalar(size, 'int64') : b.op.Squeeze(size, [0]);
  return b.op.Range(b.scalar(0, 'int64'), limit, b.scalar(1, 'int64'));
}

export interface Order {
  /** Number of queries and keys. */
  readonly queries: Size;
  readonly keys: Size;
  /** Keys before the first query: a length for all, or int64[batch]. */
  readonly past: Size | { readonly rows: Value };
  /** How many keys up to its own position a query looks at; all by default. */
  readonly window?: number;
}

/** Whether query i looks at key j: j ≤ past + i, and j > past + i - window. [queries, keys], or with rows [batch, 1, …]. */
export function causal(shapes: Shapes, { queries, keys, past, window }: Order): Value {
  const { op } = shapes.b;
  let own = op.Unsqueeze(range(shapes, queries), [1]);
  if (typeof past === 'object' && 'rows' in past) own = op.Add(op.Unsqueeze(past.rows, [1, 2, 3]), own);
  else if (past !== 0) own = op.Add(own, typeof past === 'number' ? past : op.Squeeze(past, [0]));
  const other = op.Unsqueeze(range(shapes, keys), [0]);
  const before = op.LessOrEqual(other, own);
  return window === undefined ? before : op.And(before, op.Greater(other, op.Sub(own, window)));
}

/** Keys j < lengths[row]: [batch, 1, 1, keys]. */
export function within(shapes: Shapes, lengths: Value, keys: Size): Value {
  const { op } = shapes.b;
  const limit = op.Unsqueeze(op.Cast(lengths, { to: 'int64' }), [1, 2, 3]);
  return op.Less(range(shapes, keys), limit);
}

/**
 * Where a padding mask of ONNX Runtime lets queries look, broadcast over [batch, heads, queries, keys]. It is int32:
 * lengths [batch], [batch, keys] or [batch, queries, keys] of 0 and 1.
 */
export function padding(shapes: Shapes, mask: Value, batch: Value, keys: Size): Value {
  const { op } = shapes.b;
  const rank = shapes.rank(mask);
  if (rank === 2) return op.Greater(op.Unsqueeze(mask, [1, 2]), 0);
  if (rank === 3) return op.Greater(op.Unsqueeze(mask, [1]), 0);
  if (rank !== 1) return refuse(`its mask has ${rank} axes`);
  const [size, rows] = [shapes.dim(mask, 0), shapes.dim(batch, 0)];
  if (size !== null && sameDim(size, rows)) return within(shapes, mask, keys);
  if (typeof size === 'number' && size === 2 * Number(rows)) {
    const [ends, starts] = op.Split(mask, shapes.b.ints([size / 2, size / 2]), { axis: 0 }, 2);
    if (ends === undefined || starts === undefined)
      return refuse('its mask does not part into ends and starts');
    const first = op.Unsqueeze(op.Cast(starts, { to: 'int64' }), [1, 2, 3]);
    return op.And(within(shapes, ends, keys), op.GreaterOrEqual(range(shapes, keys), first));
  }
  return refuse('its mask holds neither a length per row nor starts and ends, as far as its shape tells');
}
