/** Reductions along axes. */
import type { Dim, Shape } from '../../types.js';
import { type Call, type Rule, type Rules, unknownShape } from '../call.js';

function reducedShape(c: Call): Shape | null {
  const shape = c.shape(0);
  const keep = c.int('keepdims', 1) !== 0;
  if (shape === null) {
    // All axes: the result is a scalar whatever the rank.
    const all = c.ints('axes') === undefined && !c.has(1) && c.int('noop_with_empty_axes', 0) === 0;
    return all && !keep ? [] : null;
  }
  const axes = c.axes('axes', 1, shape.length);
  if (axes === undefined) {
    const [count] = c.shape(1) ?? [];
    if (keep) return unknownShape(shape.length);
    return typeof count === 'number' ? unknownShape(Math.max(0, shape.length - count)) : null;
  }
  if (axes.length === 0 && c.int('noop_with_empty_axes', 0) !== 0) return shape;
  const gone = axes.length === 0 ? shape.map((_, i) => i) : axes;
  return drop(shape, gone, keep);
}

function drop(shape: Shape, axes: readonly number[], keep: boolean): Shape {
  const gone = new Set(axes);
  return keep
    ? shape.map((dim, axis): Dim => (gone.has(axis) ? 1 : dim))
    : shape.filter((_, axis) => !gone.has(axis));
}

const reduce: Rule = (c) => c.set(0, c.dtype(0), reducedShape(c));

const arg: Rule = (c) => {
  const shape = c.shape(0);
  if (shape === null) return c.set(0, 'int64', null);
  c.set(0, 'int64', drop(shape, [c.axis(c.int('axis', 0), shape.length)], c.int('keepdims', 1) !== 0));
};

export const reductions: Rules = {
  ReduceSum: reduce,
  ReduceMean: reduce,
  ReduceMax: reduce,
  ReduceMin: reduce,
  ReduceProd: reduce,
  ReduceL1: reduce,
  ReduceL2: reduce,
  ReduceLogSum: reduce,
  ReduceLogSumExp: reduce,
  ReduceSumSquare: reduce,
  ArgMax: arg,
  ArgMin: arg,
};
