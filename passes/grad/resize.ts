/**
 * Gradient of Resize. Every mode is linear in the image and works on one axis after the other, so that what Resize makes
 * of the identity along an axis is its matrix R of that axis, rounding of coordinates and all: dx = Rᵀ·dy, axis by axis.
 */
import type { Value } from '../../src/graph.js';
import { constantOf } from '../../src/infer/index.js';
import { tensorOf } from '../../src/literals.js';
import { elementsOf } from '../../src/tensor.js';
import type { GradientContext } from './context.js';
import { defineGradient, type Gradient, type Scaled } from './rule.js';
import { numbersOf } from './scalars.js';

/** An axis whose size or sampling changes. */
interface ResizedAxis {
  readonly axis: number;
  /** Where the axis stands in `scales` and `sizes`. */
  readonly index: number;
  /** Output size over input size, where it is known beforehand. */
  readonly scale: number | undefined;
}

/** Attributes that say how an axis is sampled; what is outside of the image counts for nothing in a gradient. */
const SAMPLING = [
  'mode',
  'coordinate_transformation_mode',
  'nearest_mode',
  'cubic_coeff_a',
  'exclude_outside',
  'antialias',
];

function resize(c: GradientContext): Value | Scaled {
  if (c.string('coordinate_transformation_mode', 'half_pixel') === 'tf_crop_and_resize')
    return c.unsupported('tf_crop_and_resize cuts a region out');
  if (c.string('keep_aspect_ratio_policy', 'stretch') !== 'stretch')
    return c.unsupported('keep_aspect_ratio_policy chooses the sizes');
  const axes = resizedAxes(c);
  return repeated(c, axes) ?? [...axes].reverse().reduce((dy, axis) => alongAxis(c, axis, dy), c.dy);
}

/** Scales as a value; undefined where sizes are given. An empty tensor stands for what is absent. */
function scalesOf(c: GradientContext): Value | undefined {
  const scales = c.optional(2);
  const constant = scales === undefined ? undefined : constantOf(scales);
  const empty = constant !== undefined && elementsOf(constant) === 0;
  return empty || c.optional(3) !== undefined ? undefined : scales;
}

function resizedAxes(c: GradientContext): ResizedAxis[] {
  const given = c.ints('axes') ?? Array.from({ length: c.rank() }, (_, axis) => axis);
  const scales = scalesOf(c);
  const constant = scales === undefined ? undefined : constantOf(scales);
  const numbers = constant === undefined ? undefined : numbersOf(constant);
  return given
    .map((axis, index): ResizedAxis => {
      const at = c.shapes.axis(c.x, axis);
      const [from, to] = [c.shapes.dim(c.x, at), c.shapes.dim(c.y, at)];
      const same = from !== null && from === to && scales === undefined;
      const ratio = typeof from === 'number' && typeof to === 'number' ? to / from : undefined;
      return { axis: at, index, scale: same ? 1 : scales === undefined ? ratio : numbers?.[index] };
    })
    .filter(({ scale }) => scale !== 1)
    .sort((a, b) => a.axis - b.axis);
}

/** Rules of coordinates and of rounding under which whole scales repeat every pixel. */
const REPEATING: Readonly<Record<string, readonly string[]>> = {
  asymmetric: ['floor'],
  tf_half_pixel_for_nn: ['floor'],
  half_pixel: ['round_prefer_floor', 'round_prefer_ceil'],
  half_pixel_symmetric: ['round_prefer_floor', 'round_prefer_ceil'],
  pytorch_half_pixel: ['round_prefer_floor', 'round_prefer_ceil'],
};

/** The sum over the copies of each pixel, as an average; undefined where pixels are not simply repeated. */
function repeated(c: GradientContext, axes: readonly ResizedAxis[]): Scaled | undefined {
  const rank = c.rank();
  const roundings = REPEATING[c.string('coordinate_transformation_mode', 'half_pixel')] ?? [];
  const rounding = c.string('nearest_mode', 'round_prefer_floor');
  const repeats =
    c.string('mode', 'nearest') === 'nearest' &&
    roundings.includes(rounding) &&
    rank >= 3 &&
    rank <= 5 &&
    axes.every(({ axis, scale = 0 }) => axis >= 2 && scale >= 1 && Number.isInteger(scale));
  if (!repeats) return undefined;
  const kernel = new Array<number>(rank - 2).fill(1);
  for (const { axis, scale = 1 } of axes) kernel[axis - 2] = scale;
  const value = c.op.AveragePool(c.dy, { kernel_shape: kernel, strides: kernel });
  return { value, scale: kernel.reduce((area, size) => area * size, 1) };
}

/** Rᵀ·dy along one axis. */
function alongAxis(c: GradientContext, resized: ResizedAxis, dy: Value): Value {
  const { op, shapes } = c;
  const { axis } = resized;
  const last = c.rank() - 1;
  const matrix = matrixOf(c, resized);
  if (axis === last) return op.MatMul(dy, matrix);
  if (axis === last - 1) return op.MatMul(op.Transpose(matrix, { perm: [1, 0] }), dy);
  const swap = Array.from({ length: last + 1 }, (_, i) => i);
  [swap[axis], swap[last]] = [last, axis];
  return shapes.transpose(op.MatMul(shapes.transpose(dy, swap), matrix), swap);
}

/** What Resize makes of the identity [in, in], resized along its first axis: [out, in]. */
function matrixOf(c: GradientContext, { axis, index }: ResizedAxis): Value {
  const { b, op, shapes } = c;
  const size = shapes.size(c.x, axis);
  const end = typeof size === 'number' ? size : op.Squeeze(size, [0]);
  const places = op.Range(b.scalar(0, 'int64'), end, b.scalar(1, 'int64'));
  const identity = c.mask(op.Equal(op.Unsqueeze(places, [1]), op.Unsqueeze(places, [0])));
  const attributes = Object.fromEntries([...c.node.attributes].filter(([name]) => SAMPLING.includes(name)));
  const scales = scalesOf(c);
  // Before opset 13 an empty tensor says that an input is absent.
  const none = b.opset('') < 13 ? b.constant(tensorOf('float32', [0], [])) : null;
  const inputs =
    scales === undefined
      ? [identity, none, none, shapes.vector([shapes.size(c.y, axis), size])]
      : [identity, none, op.Concat([op.Gather(scales, [index], { axis: 0 }), unit(c)], { axis: 0 })];
  return b.call('Resize', inputs, attributes)[0] as Value;
}

function unit({ b }: GradientContext): Value {
  return b.constant(tensorOf('float32', [1], [1]));
}

export const resizes: readonly Gradient[] = [
  defineGradient({ op: 'Resize', opsets: [11, Number.POSITIVE_INFINITY] }, (c) => [() => resize(c)]),
];
