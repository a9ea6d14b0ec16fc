/** The orthonormal factor of a QR decomposition with the signs that LAPACK gives its columns, in operators of ONNX. */
import type { Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';

/**
 * Q [rows, columns] of a matrix with at least as many rows as columns. Householder reflections
 * `H = I − 2 v vᵀ / vᵀv`, `v = x + sign(x_k) ‖x‖ e_k`, one per column; `Q = H_1 … H_r I`.
 */
export function orthonormal(op: Ops, matrix: Value, rows: number, columns: number): Value {
  const constant = (values: number[], shape: readonly number[]) =>
    op.CastLike(op.Reshape(op.Constant({ value_floats: values }), [...shape]), matrix);
  const reflections: Value[] = [];
  const reflect = (v: Value, m: Value): Value => {
    const half = op.Div(op.ReduceSumSquare(v, [0], { keepdims: 1 }), 2);
    return op.Sub(m, op.MatMul(op.Div(v, half), op.MatMul(op.Transpose(v, { perm: [1, 0] }), m)));
  };
  let left = matrix;
  // What is one number high is left as it is.
  for (let k = 0; k < Math.min(columns, rows - 1); k++) {
    const below = constant(
      Array.from({ length: rows }, (_, i) => (i >= k ? 1 : 0)),
      [rows, 1],
    );
    const unit = constant(
      Array.from({ length: rows }, (_, i) => (i === k ? 1 : 0)),
      [rows, 1],
    );
    const x = op.Mul(op.Slice(left, [k], [k + 1], [1]), below);
    const first = op.Slice(x, [k], [k + 1], [0]);
    const length = op.Sqrt(op.ReduceSumSquare(x, [0], { keepdims: 1 }));
    const signed = op.Where(op.Less(first, 0), op.Neg(length), length);
    const v = op.Add(x, op.Mul(signed, unit));
    reflections.push(v);
    left = reflect(v, left);
  }
  const identity = Array.from({ length: rows * columns }, (_, i) =>
    Math.floor(i / columns) === i % columns ? 1 : 0,
  );
  return reflections.reduceRight((q, v) => reflect(v, q), constant(identity, [rows, columns]));
}
