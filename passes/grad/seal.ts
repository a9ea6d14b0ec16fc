/** A zero that no runtime knows to be one before it runs. */
import type { Value } from '../../src/graph.js';
import type { DType } from '../../src/types.js';
import type { GradientContext } from './context.js';

/**
 * 0 as a scalar of `dtype`, computed from the cotangent: nothing that depends on it can be folded into a constant, shared
 * with the forward pass, or run before the cotangent is there. `e > e` holds for no number, NaN included.
 */
export function sealOf(c: GradientContext, dtype: DType): Value {
  const { op } = c;
  const first = op.Slice(op.Reshape(c.dy, [-1]), [0], [1], [0]);
  const element = op.ReduceSum(first, null, { keepdims: 0 });
  return op.Cast(op.Greater(element, element), { to: dtype });
}
