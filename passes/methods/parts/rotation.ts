/** Orthogonal matrices of skew-symmetric ones, block by block, in operators that ONNX has. */
import type { Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';

/** Steps of Newton's iteration; it doubles the digits with each, from a start that is right to 1 in 10⁶ or better. */
const STEPS = 26;

function identity(size: number): number[] {
  return Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0));
}

/** I [1, size, size] in the type of `like`. */
export function eye(op: Ops, size: number, like: Value): Value {
  return op.CastLike(op.Reshape(op.Constant({ value_floats: identity(size) }), [1, size, size]), like);
}

/** Skew-symmetric [blocks, size, size] of the entries above the diagonal, [blocks, size (size − 1) / 2], row by row. */
export function skewOf(op: Ops, entries: Value, size: number): Value {
  const places: number[] = [];
  const signs: number[] = [];
  const place = (row: number, column: number) => row * size - (row * (row + 1)) / 2 + column - row - 1;
  for (let row = 0; row < size; row++)
    for (let column = 0; column < size; column++) {
      places.push(row === column ? 0 : place(Math.min(row, column), Math.max(row, column)));
      signs.push(Math.sign(column - row));
    }
  const gathered = op.Gather(entries, op.Constant({ value_ints: places }), { axis: 1 });
  const signed = op.Mul(gathered, op.CastLike(op.Constant({ value_floats: signs }), entries));
  return op.Reshape(signed, [-1, size, size]);
}

/** (I − Q)(I + Q)⁻¹ for skew-symmetric Q [blocks, size, size]. I + Q is normal, so that Newton's iteration converges. */
export function cayley(op: Ops, skew: Value, size: number): Value {
  const one = eye(op, size, skew);
  const matrix = op.Add(one, skew);
  // The sums of rows and of columns are the same.
  const sums = op.ReduceSum(op.Abs(matrix), [2], { keepdims: 1 });
  const bound = op.ReduceMax(sums, [1], { keepdims: 1 });
  let inverse = op.Div(op.Sub(one, skew), op.Mul(bound, bound));
  for (let step = 0; step < STEPS; step++)
    inverse = op.MatMul(inverse, op.Sub(op.Mul(one, 2), op.MatMul(matrix, inverse)));
  return op.MatMul(op.Sub(one, skew), inverse);
}

/** The series of (I + Q)(I − Q)⁻¹ as PEFT cuts it: I + 2Q + 2Q² + … with the last term once. */
export function cayleySeries(op: Ops, skew: Value, size: number, terms: number): Value {
  let sum = eye(op, size, skew);
  if (terms > 1) sum = op.Add(sum, op.Mul(skew, 2));
  if (terms <= 2) return sum;
  let power = op.MatMul(skew, skew);
  sum = op.Add(sum, op.Mul(power, 2));
  for (let term = 3; term < terms - 1; term++) {
    power = op.MatMul(power, skew);
    sum = op.Add(sum, op.Mul(power, 2));
  }
  return op.Add(sum, op.MatMul(power, skew));
}

/** blockdiag(R) w for R [blocks or 1, size, size] and w [blocks · size, columns]. */
export function rotated(op: Ops, rotations: Value, w: Value, size: number, columns: number): Value {
  const blocks = op.Reshape(w, [-1, size, columns]);
  return op.Reshape(op.MatMul(rotations, blocks), [-1, columns]);
}
