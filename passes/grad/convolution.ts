/**
 * Gradients of convolutions, written as convolutions: dX of Conv is ConvTranspose and the reverse, and dW is a
 * convolution of x with dy in which batch and channels change places and stride and dilation swap.
 */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import { type Contribution, defineGradient, type Gradient, type GradientRule } from './rule.js';

export interface Window {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  /** Begins, then ends. */
  readonly pads: readonly number[];
}

/** Number at a spatial axis, which must be static for a strided or automatically padded window. */
function staticSize(c: GradientContext, value: Value, axis: number): number {
  const size = c.shapes.size(value, axis);
  return typeof size === 'number'
    ? size
    : c.unsupported(`size ${axis} of ${value.label} is known at run time only`);
}

/** Attributes of a sliding window with `auto_pad` resolved. */
export function windowOf(c: GradientContext, kernel: readonly number[]): Window {
  const spatial = kernel.length;
  const strides = c.ints('strides') ?? new Array<number>(spatial).fill(1);
  const dilations = c.ints('dilations') ?? new Array<number>(spatial).fill(1);
  const auto = c.string('auto_pad', 'NOTSET');
  if (auto === 'VALID') return { kernel, strides, dilations, pads: new Array<number>(2 * spatial).fill(0) };
  if (auto === 'NOTSET')
    return { kernel, strides, dilations, pads: c.ints('pads') ?? new Array<number>(2 * spatial).fill(0) };
  const pads = new Array<number>(2 * spatial).fill(0);
  kernel.forEach((extent, i) => {
    const size = staticSize(c, c.x, i + 2);
    const stride = strides[i] ?? 1;
    const reach = (dilations[i] ?? 1) * (extent - 1) + 1;
    const total = Math.max(0, (Math.ceil(size / stride) - 1) * stride + reach - size);
    const small = Math.floor(total / 2);
    pads[i] = auto === 'SAME_UPPER' ? small : total - small;
    pads[spatial + i] = total - (pads[i] ?? 0);
  });
  return { kernel, strides, dilations, pads };
}

/** Elements at the end of each axis that no window reached: (size + pads - reach) mod stride. */
export function leftover(c: GradientContext, window: Window, input: Value): number[] {
  const spatial = window.kernel.length;
  return window.kernel.map((extent, i) => {
    const stride = window.strides[i] ?? 1;
    if (stride === 1) return 0;
    const reach = (window.dilations[i] ?? 1) * (extent - 1) + 1;
    const padded = staticSize(c, input, i + 2) + (window.pads[i] ?? 0) + (window.pads[spatial + i] ?? 0);
    return (padded - reach) % stride;
  });
}

/**
 * What flows back through a sliding window: dy [N, M, …] times the weights [M, C, kernel…], of the size of `input`. Where
 * that is known at run time only, the result is made long enough for all elements, with zeros that no window reached,
 * and cut.
 */
export function spread(
  c: GradientContext,
  dy: Value,
  weights: Value,
  window: Window,
  input: Value,
  group = 1,
): Value {
  const { kernel, strides, dilations } = window;
  const spatial = kernel.length;
  const cut = kernel.flatMap((_, i) =>
    (strides[i] ?? 1) > 1 && typeof c.shapes.size(input, i + 2) !== 'number' ? [i] : [],
  );
  const known = { ...window, strides: strides.map((stride, i) => (cut.includes(i) ? 1 : stride)) };
  const y = c.op.ConvTranspose(dy, weights, null, {
    strides,
    dilations,
    pads: window.pads.map((pad, i) => (cut.includes(i - spatial) ? 0 : pad)),
    group,
    kernel_shape: kernel,
    output_padding: leftover(c, known, input).map((rest, i) =>
      cut.includes(i) ? (strides[i] ?? 1) - 1 : rest,
    ),
  });
  if (cut.length === 0) return y;
  const axes = cut.map((i) => i + 2);
  const ends = c.shapes.vector(axes.map((axis) => c.shapes.size(input, axis)));
  return c.op.Slice(
    y,
    axes.map(() => 0),
    ends,
    axes,
  );
}

function kernelOf(c: GradientContext): number[] {
  const weight = c.input(1);
  return Array.from({ length: c.rank(weight) - 2 }, (_, i) => staticSize(c, weight, i + 2));
}

/**
 * W[a, b, k] = Σ_n,p long[n, b, p·stride + k·dilation - pad] · short[n, a, p]: the kernel that maps the long signal to
 * the short one, per group. `long` [N, G·B, …] and `short` [N, G·A, …] give [G·A, B, k…].
 */
function kernelGradient(c: GradientContext, long: Value, short: Value, window: Window, group: number): Value {
  const { op, shapes } = c;
  const spatial = window.kernel.length;
  const tail = Array.from({ length: spatial }, (_, i) => i);
  const sizes = shapes.sizes(long);
  const rest = sizes.slice(2);
  const channels = staticSize(c, long, 1);
  const swap = [1, 0, ...tail.map((i) => i + 2)];
  // Groups stay separate when batch joins them as input channels: [B, G·N, …] against [G·A, N, …].
  let data: Value;
  if (group === 1) data = shapes.transpose(long, swap);
  else {
    const split = shapes.reshape(long, [sizes[0] ?? -1, group, channels / group, ...rest]);
    const moved = shapes.transpose(split, [2, 1, 0, ...tail.map((i) => i + 3)]);
    data = shapes.reshape(moved, [channels / group, -1, ...rest]);
  }
  const result = op.Conv(data, shapes.transpose(short, swap), null, {
    strides: window.dilations,
    dilations: window.strides,
    pads: window.pads,
    group,
  });
  const gradient = shapes.transpose(result, swap);
  // Elements that no window reached make the result longer than the kernel.
  return op.Slice(
    gradient,
    tail.map(() => 0),
    window.kernel,
    tail.map((i) => i + 2),
  );
}

function bias(c: GradientContext): Contribution {
  const axes = () => Array.from({ length: c.rank(c.y) }, (_, i) => i).filter((i) => i !== 1);
  return () => c.op.ReduceSum(c.dy, axes(), { keepdims: 0 });
}

const conv: GradientRule = (c) => {
  const window = windowOf(c, kernelOf(c));
  const group = c.int('group', 1);
  return [
    () => spread(c, c.dy, c.input(1), window, c.x, group),
    () => kernelGradient(c, c.x, c.dy, window, group),
    bias(c),
  ];
};

const convTranspose: GradientRule = (c) => {
  if (c.string('auto_pad', 'NOTSET') !== 'NOTSET' || c.ints('output_shape') !== undefined)
    return c.node.inputs.map(() => c.stop('its padding is automatic'));
  const window = windowOf(c, kernelOf(c));
  const { strides, dilations, pads, kernel } = window;
  const group = c.int('group', 1);
  return [
    () => c.op.Conv(c.dy, c.input(1), null, { strides, dilations, pads, group, kernel_shape: kernel }),
    () => kernelGradient(c, c.dy, c.x, window, group),
    bias(c),
  ];
};

export const convolutions: readonly Gradient[] = [
  defineGradient({ op: 'Conv' }, conv),
  defineGradient({ op: 'ConvTranspose' }, convTranspose),
];
