/** Kronecker products without the product matrix: `kron(a, b)[i₁·b₁ + i₂, o₁·b₂ + o₂] = a[i₁, o₁]·b[i₂, o₂]`. */
import type { Value } from '../../../src/graph.js';
import type { Operand } from '../../../src/ops/operand.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import { shapeOf } from '../../../src/value-type.js';

/** Shapes of the factors of a matrix [in, out]: `left` [in₁, out₁], `right` [in₂, out₂]. */
export interface KroneckerShape {
  readonly left: readonly [number, number];
  readonly right: readonly [number, number];
}

/**
 * Splits a size in two, the smaller number first. A `factor` that divides it is taken; otherwise the search goes through
 * its divisors up to `factor` (all for −1) towards the pair of least sum, as LyCORIS and PEFT do.
 */
export function splitSize(size: number, factor: number): [number, number] {
  if (factor > 0 && size % factor === 0) return [factor, size / factor];
  const most = factor === -1 ? size : factor;
  let pair: [number, number] = [1, size];
  for (let divisor = 2; divisor <= most && divisor * divisor <= size; divisor++)
    if (size % divisor === 0) pair = [divisor, size / divisor];
  return pair;
}

/** The near-square split of both sizes of a matrix, or the one that `factor` asks for. */
export function kroneckerShape(inDim: number, outDim: number, factor: number): KroneckerShape {
  const [in1, in2] = splitSize(inDim, factor);
  const [out1, out2] = splitSize(outDim, factor);
  return { left: [in1, out1], right: [in2, out2] };
}

/**
 * `x · kron(left, right)`, x [..., in] and the result [..., out]. `right` may be a product, given as its factors.
 * X[i₁, i₂] is contracted with `right` over i₂, then with `left` over i₁: every contraction is one matrix product.
 */
export function timesKronecker(
  op: Ops,
  x: Value,
  left: Value,
  right: readonly Value[],
  { left: [in1, out1], right: [in2, out2] }: KroneckerShape,
): Value {
  const swapped = { perm: [0, 2, 1] };
  let y = op.Reshape(x, [-1, in1, in2]);
  for (const factor of right) y = op.MatMul(y, factor);
  // [tokens, i₁, o₂] → [tokens, o₂, i₁] → [tokens, o₂, o₁] → [tokens, o₁, o₂]
  y = op.Transpose(op.MatMul(op.Transpose(y, swapped), left), swapped);
  return op.Reshape(y, withFeatures(op, x, out1 * out2));
}

/** The shape of `x` with another size of the last axis. */
function withFeatures(op: Ops, x: Value, features: number): Operand {
  const shape = shapeOf(x);
  const leading = shape?.slice(0, -1).map((dim) => (typeof dim === 'number' ? dim : -1));
  if (leading !== undefined && leading.filter((dim) => dim === -1).length <= 1) return [...leading, features];
  return op.Concat([op.Slice(op.Shape(x), [0], [-1], [0]), [features]], { axis: 0 });
}

/** The product itself. */
export function kronecker(
  op: Ops,
  left: Value,
  right: Value,
  { left: [in1, out1], right: [in2, out2] }: KroneckerShape,
): Value {
  const blocks = op.Mul(op.Reshape(left, [in1, 1, out1, 1]), op.Reshape(right, [1, in2, 1, out2]));
  return op.Reshape(blocks, [in1 * in2, out1 * out2]);
}

/** Why factors of these sizes make no sense; undefined where they are smaller than the weight. */
export function tooLarge(
  { inDim, outDim }: { readonly inDim: number; readonly outDim: number },
  factor: number,
): string | undefined {
  const { left, right } = kroneckerShape(inDim, outDim, factor);
  if (left[0] * left[1] + right[0] * right[1] < inDim * outDim) return undefined;
  return `${inDim} × ${outDim} has no Kronecker factors that are smaller than the weight; exclude it, or adapt it with lora`;
}
