/** Formulas inside a method that half precision cannot carry: sums of squares overflow, TopK has no kernels. */
import type { Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { DType } from '../../../src/types.js';

function isWide(dtype: DType): boolean {
  return dtype === 'float32' || dtype === 'float64';
}

/** `value` of element type `dtype` in at least float32. */
export function widened(op: Ops, value: Value, dtype: DType): Value {
  return isWide(dtype) ? value : op.Cast(value, { to: 'float32' });
}

/** The way back from `widened`. */
export function narrowed(op: Ops, value: Value, dtype: DType): Value {
  return isWide(dtype) ? value : op.Cast(value, { to: dtype });
}
