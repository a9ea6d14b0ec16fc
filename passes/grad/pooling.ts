/** Gradients of pooling. */
import type { Value } from '../../src/graph.js';
import { countOf } from '../../src/types.js';
import type { GradientContext } from './context.js';
import { spread, type Window, windowOf } from './convolution.js';
import { defineGradient, type Gradient } from './rule.js';

/** Every channel of every batch element as its own image with one channel. */
function images(c: GradientContext, value: Value): Value {
  return c.shapes.reshape(value, [-1, 1, ...c.shapes.sizes(value).slice(2)]);
}

/** An average is a convolution with equal weights; its transpose spreads dy/count over each window. */
function averagePool(c: GradientContext): Value {
  const { op, shapes } = c;
  if (c.int('ceil_mode', 0) !== 0) return c.unsupported('ceil_mode is on');
  const window = windowOf(c, c.ints('kernel_shape') ?? []);
  const { kernel, pads } = window;
  const weights = op.Expand(c.number(1), c.b.ints([1, 1, ...kernel]));
  const area = countOf(kernel);
  const uniform = c.int('count_include_pad', 0) === 1 || pads.every((pad) => pad === 0);
  const dy = images(c, uniform ? c.dy : perCount(c, window, weights));
  const result = shapes.reshapeLike(spread(c, dy, weights, window, c.x), c.x);
  return uniform ? op.Mul(result, 1 / area) : result;
}

/** dy over the number of elements that each window has inside the image. */
function perCount(c: GradientContext, window: Window, weights: Value): Value {
  const { strides, dilations, pads, kernel } = window;
  const image = c.op.Expand(c.number(1), c.shapes.vector([1, 1, ...c.shapes.sizes(c.x).slice(2)]));
  const count = c.op.Conv(image, weights, null, { strides, dilations, pads, kernel_shape: kernel });
  return c.op.Div(c.dy, count);
}

/** dy at the position of each maximum, added up where windows overlap. */
function maxPool(c: GradientContext): Value {
  const { op, shapes } = c;
  if (c.int('storage_order', 0) !== 0) return c.unsupported('storage_order is column major');
  const saved = c.node.outputs[1];
  const attributes = Object.fromEntries(c.node.attributes);
  const indices = saved ?? c.b.call('MaxPool', [c.x], attributes, { outputs: 2 })[1];
  if (indices === undefined) return c.unsupported('it has no indices');
  const flat = op.Expand(c.number(0), op.Reshape(op.Size(c.x), [1]));
  const sum = op.ScatterElements(flat, op.Reshape(indices, [-1]), op.Reshape(c.dy, [-1]), {
    axis: 0,
    reduction: 'add',
  });
  return op.Reshape(sum, shapes.shape(c.x));
}

function spatialAxes(c: GradientContext): number[] {
  return Array.from({ length: c.rank() - 2 }, (_, i) => i + 2);
}

export const poolings: readonly Gradient[] = [
  defineGradient({ op: 'AveragePool' }, (c) => [() => averagePool(c)]),
  defineGradient({ op: 'MaxPool' }, (c) => [() => maxPool(c)]),
  defineGradient({ op: 'GlobalAveragePool' }, (c) => [
    () => {
      const spread = c.shapes.expandLike(c.dy, c.x);
      const sizes = spatialAxes(c).map((axis) => c.shapes.size(c.x, axis));
      const known = sizes.filter((size) => typeof size === 'number').reduce((a, b) => a * b, 1);
      const unknown = sizes.filter((size) => typeof size !== 'number');
      if (unknown.length === 0) return { value: spread, scale: 1 / known };
      const count = c.op.Squeeze(
        unknown.reduce((product, size) => c.op.Mul(product, size)),
        [0],
      );
      return { value: c.op.Div(spread, c.op.Cast(count, { to: c.dtype() })), scale: 1 / known };
    },
  ]),
  defineGradient({ op: 'GlobalMaxPool' }, (c) => [
    () => {
      const mask = c.mask(c.op.Equal(c.x, c.y));
      return c.op.Mul(mask, c.op.Div(c.dy, c.op.ReduceSum(mask, spatialAxes(c), { keepdims: 1 })));
    },
  ]),
];
