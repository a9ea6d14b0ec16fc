/** Gradients of reductions. dy and y are brought back to the rank of x first; broadcasting does the rest. */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import { sign } from './elementwise.js';
import { defineGradient, type Gradient, type Scaled } from './rule.js';

interface Reduction {
  /** A value of the reduced shape with the reduced axes kept as size 1. */
  keep(value: Value): Value;
  readonly dy: Value;
  readonly y: Value;
  /** Reduced axes counted from the front. */
  readonly axes: readonly number[];
}

function reduction(c: GradientContext): Reduction | undefined {
  const given = c.intsParameter('axes', 1);
  // An empty list means "all axes" too, unless the op is asked to be the identity then.
  if ((given === undefined || given.length === 0) && c.int('noop_with_empty_axes', 0) === 1) return undefined;
  const all = given === undefined || given.length === 0;
  const axes = () =>
    all ? Array.from({ length: c.rank() }, (_, i) => i) : given.map((axis) => c.shapes.axis(c.x, axis));
  const keep = (value: Value) => {
    // A full reduction is a scalar and broadcasts as it is, whatever the rank.
    if (c.int('keepdims', 1) === 1 || all) return value;
    return c.op.Unsqueeze(
      value,
      axes().sort((a, b) => a - b),
    );
  };
  return {
    keep,
    get axes() {
      return axes();
    },
    get dy() {
      return keep(c.dy);
    },
    get y() {
      return keep(c.y);
    },
  };
}

type Rule = (c: GradientContext, r: Reduction) => Value | Scaled;

/** `identity` is the gradient of the elementwise function that remains when no axis is reduced. */
function reduce(op: string, rule: Rule, identity: (c: GradientContext) => Value = (c) => c.dy): Gradient {
  return defineGradient({ op }, (c) => [
    () => {
      const r = reduction(c);
      if (r === undefined) return identity(c);
      const result = rule(c, r);
      const { value, scale } = 'scale' in result ? result : { value: result, scale: 1 };
      return { value: c.shapes.expandLike(value, c.x), scale };
    },
  ]);
}

/** 1 / number of reduced elements: a scale when it is known, a factor otherwise. */
function mean(c: GradientContext, r: Reduction): Value | Scaled {
  let count = 1;
  const unknown: Value[] = [];
  for (const axis of r.axes) {
    const size = c.shapes.size(c.x, axis);
    if (typeof size === 'number') count *= size;
    else unknown.push(size);
  }
  if (unknown.length === 0) return { value: r.dy, scale: 1 / count };
  const total = c.op.Squeeze(
    unknown.reduce((product, size) => c.op.Mul(product, size)),
    [0],
  );
  return { value: c.op.Div(r.dy, c.op.Cast(total, { to: c.dtype() })), scale: 1 / count };
}

/** dy at the extreme, shared evenly between ties. */
function extreme(c: GradientContext, r: Reduction): Value {
  const mask = c.mask(c.op.Equal(c.x, r.y));
  return c.op.Mul(mask, c.op.Div(r.dy, c.op.ReduceSum(mask, [...r.axes], { keepdims: 1 })));
}

/** dy · product of the others: y/x, or the product of the rest where x is the only zero. */
function product(c: GradientContext, r: Reduction): Value {
  const { op, x } = c;
  const axes = [...r.axes];
  const zero = op.Equal(x, 0);
  const safe = op.Where(zero, c.number(1), x);
  const rest = op.ReduceProd(safe, axes, { keepdims: 1 });
  const zeros = op.ReduceSum(c.mask(zero), axes, { keepdims: 1 });
  const none = c.number(0);
  const atZero = op.Where(op.Equal(zeros, 1), rest, none);
  const elsewhere = op.Where(op.Equal(zeros, 0), op.Div(rest, safe), none);
  return op.Mul(r.dy, op.Where(zero, atZero, elsewhere));
}

/** dy·x/y, and 0 where the norm is 0. */
function norm(c: GradientContext, r: Reduction): Value {
  const zero = c.op.Equal(r.y, 0);
  return c.op.Mul(c.x, c.op.Div(c.op.Where(zero, c.number(0), r.dy), c.op.Where(zero, c.number(1), r.y)));
}

export const reductions: readonly Gradient[] = [
  reduce('ReduceSum', (_, r) => r.dy),
  reduce('ReduceMean', mean),
  reduce('ReduceMax', extreme),
  reduce('ReduceMin', extreme),
  reduce('ReduceProd', product),
  reduce(
    'ReduceL1',
    (c, r) => c.op.Mul(r.dy, sign(c, c.x)),
    (c) => c.op.Mul(c.dy, sign(c, c.x)),
  ),
  reduce('ReduceL2', norm, (c) => c.op.Mul(c.dy, sign(c, c.x))),
  reduce(
    'ReduceSumSquare',
    (c, r) => ({ value: c.op.Mul(r.dy, c.x), scale: 2 }),
    (c) => c.op.Mul(c.dy, c.op.Mul(c.x, 2)),
  ),
  // y = ln Σ x, so 1/Σ x = e^(-y).
  reduce(
    'ReduceLogSum',
    (c, r) => c.op.Mul(r.dy, c.op.Exp(c.op.Neg(r.y))),
    (c) => c.op.Div(c.dy, c.x),
  ),
  reduce('ReduceLogSumExp', (c, r) => c.op.Mul(r.dy, c.op.Exp(c.op.Sub(c.x, r.y)))),
  defineGradient({ op: 'CumSum' }, (c) => [
    () =>
      c.op.CumSum(c.dy, c.input(1), {
        reverse: 1 - c.int('reverse', 0),
        exclusive: c.int('exclusive', 0),
      }),
  ]),
];
