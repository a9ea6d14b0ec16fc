import type { GradientCase } from '../harness.js';

function matmul(a: number[], b: number[]): GradientCase {
  return {
    name: `MatMul [${a}]×[${b}]`,
    inputs: [{ shape: a }, { shape: b }],
    build: (builder, [x, y]) => builder.op.MatMul(x!, y!),
  };
}

const bits = [0, 1] as const;

export const linear: Record<string, GradientCase[]> = {
  MatMul: [
    matmul([3, 4], [4, 5]),
    matmul([2, 3, 4], [4, 5]),
    matmul([2, 2, 3, 4], [4, 5]),
    matmul([2, 3, 4], [2, 4, 5]),
    matmul([2, 6, 3, 4], [2, 6, 4, 5]),
    matmul([2, 1, 3, 4], [6, 4, 5]),
    matmul([3, 4], [2, 4, 5]),
    matmul([4], [4, 5]),
    matmul([3, 4], [4]),
    matmul([2, 3, 4], [4]),
    matmul([4], [4]),
    {
      name: 'attention: transposed keys',
      inputs: [{ shape: [2, 3, 2, 4] }, { shape: [2, 5, 2, 4] }, { shape: [2, 5, 2, 6] }],
      build: (b, [q, k, v]) => {
        const scores = b.op.MatMul(
          b.op.Transpose(q!, { perm: [0, 2, 1, 3] }),
          b.op.Transpose(k!, { perm: [0, 2, 3, 1] }),
        );
        const p = b.op.Softmax(b.op.Div(scores, 1.7), { axis: -1 });
        return b.op.Transpose(b.op.MatMul(p, b.op.Transpose(v!, { perm: [0, 2, 1, 3] })), {
          perm: [0, 2, 1, 3],
        });
      },
    },
  ],
  Gemm: bits.flatMap((transA) =>
    bits.flatMap((transB) =>
      [[], [5], [3, 1], [3, 5]].map(
        (c): GradientCase => ({
          name: `Gemm ${transA}${transB} C [${c}]`,
          inputs: [{ shape: transA ? [4, 3] : [3, 4] }, { shape: transB ? [5, 4] : [4, 5] }, { shape: c }],
          build: (b, [x, y, z]) => b.op.Gemm(x!, y!, z, { transA, transB, alpha: 0.5, beta: 0.25 }),
        }),
      ),
    ),
  ),
  'com.microsoft.FusedMatMul': bits.flatMap((transA) =>
    bits.flatMap((transB) =>
      [[2], [2, 3], []].map(
        (batch): GradientCase => ({
          name: `FusedMatMul ${transA}${transB} batch [${batch}]`,
          inputs: [
            {
              shape: [2, 3, ...(transA ? [4, 5] : [5, 4])].slice(transA === 1 && batch.length === 0 ? 2 : 0),
            },
            { shape: [...(batch.length === 1 ? [1, 3] : batch), ...(transB ? [6, 4] : [4, 6])] },
          ],
          build: (b, [x, y]) => b.microsoft.FusedMatMul(x!, y!, { transA, transB, alpha: 0.5 }),
        }),
      ),
    ),
  ),
  Einsum: [
    ['ij,jk->ik', [3, 4], [4, 5]],
    ['bhqd,bhkd->bhqk', [2, 2, 3, 4], [2, 2, 5, 4]],
    ['bij,kj->b', [2, 3, 4], [5, 4]],
    ['ij,jk', [3, 4], [4, 5]],
    ['...ij,...jk->...ik', [2, 3, 4], [2, 4, 5]],
    ['...ij,...jk->...ik', [1, 3, 4], [2, 4, 5]],
    ['i,j->ij', [3], [4]],
  ].map(
    ([equation, x, y]): GradientCase => ({
      name: `Einsum ${equation} [${x}]×[${y}]`,
      inputs: [{ shape: x as number[] }, { shape: y as number[] }],
      build: (b, xs) => b.op.Einsum(xs, { equation: equation as string }),
    }),
  ),
};
