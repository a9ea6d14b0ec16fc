/** Gradients of softmax and its logarithm, written with the forward result. */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import { defineGradient, type Gradient } from './rule.js';

/** Before opset 13 softmax normalises over all axes from `axis` on (default 1), since then over one (default -1). */
function axesOf(c: GradientContext, coerced: boolean): number[] {
  const rank = c.rank(c.y);
  const axis = c.shapes.axis(c.y, c.int('axis', coerced ? 1 : -1));
  return coerced ? Array.from({ length: rank - axis }, (_, i) => axis + i) : [axis];
}

function sum(c: GradientContext, value: Value, axes: readonly number[]): Value {
  return c.op.ReduceSum(value, axes, { keepdims: 1 });
}

/** y·(dy - Σ y·dy) */
function softmax(coerced: boolean) {
  return (c: GradientContext) => [
    () => {
      const product = c.op.Mul(c.dy, c.y);
      return c.op.Sub(product, c.op.Mul(c.y, sum(c, product, axesOf(c, coerced))));
    },
  ];
}

/** dy - e^y·Σ dy */
function logSoftmax(coerced: boolean) {
  return (c: GradientContext) => [
    () => c.op.Sub(c.dy, c.op.Mul(c.op.Exp(c.y), sum(c, c.dy, axesOf(c, coerced)))),
  ];
}

export const softmaxes: readonly Gradient[] = [
  defineGradient({ op: 'Softmax', opsets: [1, 12] }, softmax(true)),
  defineGradient({ op: 'Softmax', opsets: [13, Number.POSITIVE_INFINITY] }, softmax(false)),
  defineGradient({ op: 'LogSoftmax', opsets: [1, 12] }, logSoftmax(true)),
  defineGradient({ op: 'LogSoftmax', opsets: [13, Number.POSITIVE_INFINITY] }, logSoftmax(false)),
];
