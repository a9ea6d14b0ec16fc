/**
 * Gradients of quantised operators, in units of what a tensor stores: an integer tensor's cotangent is a float tensor
 * ∂L/∂code. Rounding is passed straight through (its derivative is taken as 1; arXiv:1308.3432), scales and zero points
 * get no gradient, and codes that were clipped count as the others.
 *
 * Frozen weights stay as they are stored. Backward reads the codes of one weight, makes floats of them and drops them
 * after the product. Constants alone would not do: a runtime folds what depends on nothing else into a float copy when
 * it opens the session, or shares it with the forward pass and keeps it between both. So the codes go through ops that
 * take a number which is 0 and depends on the cotangent (`seal`).
 */
import type { Value } from '../../src/graph.js';
import { dequantizedMatrix, isRefusal, quantizedProduct } from '../quantize/products.js';
import { payloadOf } from '../sites/payload.js';
import { blockProduct } from './block-product.js';
import type { GradientContext } from './context.js';
import { type Contribution, defineGradient, type Gradient } from './rule.js';
import { sealOf } from './seal.js';

const MICROSOFT = 'com.microsoft';

/** dX of y = x W + b for a float x and a weight in blocks. */
function packedProduct(c: GradientContext): readonly Contribution[] {
  const product = quantizedProduct(c.node);
  if (product === undefined) return [c.stop('its weight is computed at run time')];
  const { weight, bias } = product;
  const contributions: Contribution[] = c.node.inputs.map(() => null);
  contributions[0] = isRefusal(weight)
    ? c.stop(`${weight.message}. ${weight.remedy}`)
    : () => c.shapes.reshapeLike(blockProduct(c, weight), c.x);
  if (bias !== undefined) contributions[bias] = () => c.shapes.unbroadcast(c.dy, c.input(bias));
  return contributions;
}

/** Integers of 8 bits as floats times their scales, made anew in the backward pass. `scales`: 1 where there are none. */
function floats(
  c: GradientContext,
  codes: Value,
  { scales, zeroPoint, axis = 1 }: { scales?: Value; zeroPoint?: Value | undefined; axis?: number },
): Value {
  const dtype = scales === undefined ? 'float32' : c.dtype(scales);
  const given = scales ?? c.b.scalar(1, dtype);
  // The operator takes as many scales as zero points; the products take one of either with many of the other.
  const isOne = (value: Value) => c.shapes.dims(value)?.every((dim) => dim === 1) === true;
  const like = (value: Value, other: Value | undefined) =>
    other !== undefined && isOne(value) && !isOne(other) ? c.op.Expand(value, c.shapes.shape(other)) : value;
  const sealed = c.op.Add(like(given, zeroPoint), sealOf(c, dtype));
  const zeros = zeroPoint === undefined ? undefined : like(zeroPoint, given);
  return c.op.DequantizeLinear(codes, sealed, zeros ?? null, { axis });
}

/** A's cotangent for the product of A (rows of codes) with B [K, N]. */
function dense(c: GradientContext, weight: Value, like: Value): Value {
  const { op, shapes } = c;
  const alpha = c.takeScale();
  return shapes.reshapeLike(op.Gemm(shapes.flat2d(c.dy), weight, null, { alpha, transB: 1 }), like);
}

/** Contribution of input `index`, a matrix of codes at `codes`. */
function onCodes(
  c: GradientContext,
  codes: number,
  parts: { readonly scales?: number; readonly zeroPoint: number },
  after: (value: Value) => Value = (value) => value,
): Contribution {
  const matrix = c.input(codes);
  if (c.rank(matrix) !== 2) return c.stop('its second operand is a stack of matrices');
  return () => {
    const scales = parts.scales === undefined ? undefined : c.input(parts.scales);
    const weight = floats(c, matrix, {
      ...(scales === undefined ? {} : { scales }),
      zeroPoint: c.optional(parts.zeroPoint),
    });
    return after(dense(c, weight, c.x));
  };
}

/** A tensor of per-channel numbers so that it broadcasts along `axis` of a tensor of rank `rank`. */
function along(c: GradientContext, value: Value, axis: number, rank: number): Value {
  if (c.rank(value) === 0 || c.shapes.dims(value)?.every((dim) => dim === 1) === true) return value;
  if (c.int('block_size', 0) !== 0) return c.unsupported('it quantises activations in blocks');
  const at = axis < 0 ? axis + rank : axis;
  return c.op.Reshape(
    value,
    Array.from({ length: rank }, (_, i) => (i === at ? -1 : 1)),
  );
}

/** code = round(x/s) + z: ∂code/∂x = 1/s */
const quantizeLinear: Gradient['rule'] = (c) => [
  () => c.op.Div(c.dy, along(c, c.input(1), c.int('axis', 1), c.rank())),
];

/** x = (code − z)·s: ∂x/∂code = s */
const dequantizeLinear: Gradient['rule'] = (c) => [
  () => c.op.Mul(c.dy, along(c, c.input(1), c.int('axis', 1), c.rank())),
];

const ESTIMATES: readonly Gradient[] = [
  defineGradient({ op: 'QuantizeLinear', codes: [0] }, quantizeLinear),
  defineGradient({ op: 'QuantizeLinear', domain: MICROSOFT, codes: [0] }, quantizeLinear),
  defineGradient({ op: 'DequantizeLinear' }, dequantizeLinear),
  defineGradient({ op: 'DequantizeLinear', domain: MICROSOFT }, dequantizeLinear),
  defineGradient({ op: 'DynamicQuantizeLinear', codes: [0] }, (c) => [
    () => c.op.Div(c.dy, c.node.output(1)),
  ]),
  // y = (A − a)(B − b)
  defineGradient({ op: 'MatMulInteger', codes: [0] }, (c) => [onCodes(c, 1, { zeroPoint: 3 })]),
  // y = (A − a)(B − b)·s_a·s_b + bias
  defineGradient({ op: 'MatMulIntegerToFloat', domain: MICROSOFT }, (c) => [
    onCodes(c, 1, { scales: 3, zeroPoint: 5 }, (value) => c.op.Mul(value, c.input(2))),
    null,
    null,
    null,
    null,
    null,
    () => c.shapes.unbroadcast(c.dy, c.input(6)),
  ]),
  defineGradient({ op: 'DynamicQuantizeMatMul', domain: MICROSOFT }, (c) => [
    onCodes(c, 1, { scales: 2, zeroPoint: 3 }),
    null,
    null,
    null,
    () => c.shapes.unbroadcast(c.dy, c.input(4)),
  ]),
  // code = (A − a)(B − b)·s_a·s_b/s_y + z
  defineGradient({ op: 'QLinearMatMul', codes: [0] }, (c) => [
    onCodes(c, 3, { scales: 4, zeroPoint: 5 }, (value) => c.op.Mul(value, c.op.Div(c.input(1), c.input(6)))),
  ]),
];

export const quantised: readonly Gradient[] = [
  ...ESTIMATES.map((gradient): Gradient => ({ ...gradient, estimate: true })),
  // Linear in x, whose codes are never rounded.
  defineGradient({ op: 'MatMulNBits', domain: MICROSOFT }, packedProduct),
  defineGradient({ op: 'MatMulBnb4', domain: MICROSOFT }, packedProduct),
];

/**
 * A weight as backward should read it: floats made of stored integers are made again, so that none outlives its
 * product. Other values are as they are.
 */
export function rematerialized(c: GradientContext, value: Value): Value {
  const node = value.producer;
  if (node === undefined || dequantizedMatrix(node) === undefined || payloadOf(node.input(0)) === undefined)
    return value;
  const scales = node.input(1);
  const sealed = c.op.Add(scales, sealOf(c, c.dtype(scales)));
  const [made = value] = c.b.emit({
    domain: node.domain,
    op: node.op,
    inputs: [node.input(0), sealed, node.inputs[2] ?? null],
    attributes: node.attributes,
    outputs: 1,
  });
  return made;
}
