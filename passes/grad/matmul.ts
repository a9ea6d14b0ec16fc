/**
 * Gradients of matrix products. A product with a matrix on the right is one Gemm over [rows, K] views: `transB` and
 * `transA` let it read the weight and the activation as they lie, so no transposed copy of a weight ever exists.
 */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import { rematerialized } from './quantized.js';
import { defineGradient, type Gradient, type GradientRule } from './rule.js';

/** alpha of a Gemm that also takes over the factor put off on dy; float64 keeps it out of the float32 attribute. */
function alphaOf(c: GradientContext, own: number): number {
  return c.dtype() === 'float64' ? own : own * c.takeScale();
}

/** Y = A·B with B [K, N] and A [..., K]. */
function onMatrix(c: GradientContext): ReturnType<GradientRule> {
  const { op, shapes } = c;
  const [a, b] = [c.input(0), c.input(1)];
  const alpha = alphaOf(c, 1);
  return [
    () =>
      shapes.reshapeLike(op.Gemm(shapes.flat2d(c.dy), rematerialized(c, b), null, { alpha, transB: 1 }), a),
    () => op.Gemm(shapes.flat2d(a), shapes.flat2d(c.dy), null, { alpha, transA: 1 }),
  ];
}

/** Y = A·B with stacks of matrices; leading axes broadcast, and vectors count as one row or one column. */
function onStacks(c: GradientContext): ReturnType<GradientRule> {
  const { op, shapes } = c;
  const [a, b] = [c.input(0), c.input(1)];
  const vectorA = c.rank(a) === 1;
  const vectorB = c.rank(b) === 1;
  const matrixA = () => (vectorA ? op.Unsqueeze(a, [0]) : a);
  const matrixB = () => (vectorB ? op.Unsqueeze(b, [1]) : b);
  const dy = () => {
    if (vectorA && vectorB) return op.Reshape(c.dy, [1, 1]);
    if (vectorA) return op.Unsqueeze(c.dy, [c.rank(c.dy) - 1]);
    return vectorB ? op.Unsqueeze(c.dy, [c.rank(c.dy)]) : c.dy;
  };
  const summed = (gradient: Value, matrix: Value, like: Value) =>
    shapes.reshapeLike(shapes.unbroadcast(gradient, matrix), like);
  return [
    () => {
      const matrix = matrixA();
      return summed(op.MatMul(dy(), shapes.swapLast(matrixB())), matrix, a);
    },
    () => {
      const matrix = matrixB();
      return summed(op.MatMul(shapes.swapLast(matrixA()), dy()), matrix, b);
    },
  ];
}

/** Y = alpha·op(A)·op(B) + beta·C */
const gemm: GradientRule = (c) => {
  const [a, b] = [c.input(0), c.input(1)];
  const [transA, transB] = [c.int('transA', 0), c.int('transB', 0)];
  const beta = c.float('beta', 1);
  const scale = alphaOf(c, 1);
  const alpha = c.float('alpha', 1) * scale;
  const product = (l: Value, r: Value, tl: number, tr: number) =>
    c.op.Gemm(l, r, null, { alpha, transA: tl, transB: tr });
  return [
    () => {
      const weight = rematerialized(c, b);
      return transA === 0 ? product(c.dy, weight, 0, 1 - transB) : product(weight, c.dy, transB, 1);
    },
    () => (transB === 0 ? product(a, c.dy, 1 - transA, 0) : product(c.dy, a, 1, transA)),
    () => ({ value: c.shapes.unbroadcast(c.dy, c.input(2)), scale: beta * scale }),
  ];
};

/** Y = alpha·op(A)·op(B) over stacks. */
const fusedMatMul: GradientRule = (c) => {
  const { op, shapes } = c;
  if (c.int('transBatchA', 0) !== 0 || c.int('transBatchB', 0) !== 0)
    return [c.stop('batch axes are transposed'), c.stop('batch axes are transposed')];
  const alpha = c.float('alpha', 1);
  const [transA, transB] = [c.int('transA', 0) === 1, c.int('transB', 0) === 1];
  const [a, b] = [c.input(0), c.input(1)];
  const flip = (value: Value, on: boolean) => (on ? shapes.swapLast(value) : value);
  if (c.rank(b) === 2 && !transA) {
    const tb = transB ? 1 : 0;
    return [
      () => ({
        value: shapes.reshapeLike(op.Gemm(shapes.flat2d(c.dy), b, null, { transB: 1 - tb }), a),
        scale: alpha,
      }),
      () => {
        const [x, dy] = [shapes.flat2d(a), shapes.flat2d(c.dy)];
        const value = transB ? op.Gemm(dy, x, null, { transA: 1 }) : op.Gemm(x, dy, null, { transA: 1 });
        return { value, scale: alpha };
      },
    ];
  }
  return [
    () => {
      const gradient = transA
        ? op.MatMul(flip(b, transB), shapes.swapLast(c.dy))
        : op.MatMul(c.dy, flip(b, !transB));
      return { value: shapes.unbroadcast(gradient, a), scale: alpha };
    },
    () => {
      const gradient = transB
        ? op.MatMul(shapes.swapLast(c.dy), flip(a, transA))
        : op.MatMul(flip(a, !transA), c.dy);
      return { value: shapes.unbroadcast(gradient, b), scale: alpha };
    },
  ];
};

export const products: readonly Gradient[] = [
  defineGradient({ op: 'MatMul' }, (c) =>
    c.rank(c.input(1)) === 2 && c.rank(c.input(0)) >= 2 ? onMatrix(c) : onStacks(c),
  ),
  defineGradient({ op: 'Gemm' }, gemm),
  defineGradient({ op: 'FusedMatMul', domain: 'com.microsoft' }, fusedMatMul),
];
