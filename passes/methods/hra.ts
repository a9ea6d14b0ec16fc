import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { normal } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  rank: z.int().min(1).default(8).describe('Reflections r'),
  orthogonal: z.boolean().default(false).describe('Make the vectors orthogonal first (PEFT apply_GS)'),
});

/** Columns of length one. */
function normalized(op: Ops, u: Value): Value {
  return op.Div(u, op.Sqrt(op.ReduceSumSquare(u, [0], { keepdims: 1 })));
}

/** Gram and Schmidt: each column without its share of those before it. */
function orthogonalized(op: Ops, columns: readonly Value[]): Value[] {
  const done: Value[] = [];
  for (const column of columns) {
    let rest = column;
    for (const other of done) rest = reduced(op, rest, other, 1);
    done.push(normalized(op, rest));
  }
  return done;
}

/** value − factor · u (uᵀ value) for u [n, 1]. */
function reduced(op: Ops, value: Value, u: Value, factor: number): Value {
  const share = op.MatMul(op.Transpose(u, { perm: [1, 0] }), value);
  return op.Sub(value, op.MatMul(u, factor === 1 ? share : op.Mul(share, factor)));
}

/**
 * Householder reflection adaptation: `W' = H_r … H₁ W`, `H = I − 2 u uᵀ` with u of length one. With orthogonal vectors
 * that is `I − 2 U Uᵀ`.
 */
export default defineMethod({
  id: 'hra',
  summary: 'Reflections of the inputs of every module',
  paper: {
    title:
      'Bridging The Gap between Low-rank and Orthogonal Adaptation via Householder Reflection Adaptation',
    arxiv: '2405.17484',
  },
  config,
  internal: ofFiles('HRA'),
  startsAsBase: false,
  sites: {
    linear: onWeights(
      ({ inDim }, { rank }: z.output<typeof config>) => ({
        u: { shape: [inDim, rank], init: normal(1), key: 'hra_u' },
      }),
      (op, { w }, { u }, { rank, orthogonal }) => {
        const columns = Array.from({ length: rank }, (_, i) => op.Slice(u, [i], [i + 1], [1]));
        const units = orthogonal
          ? orthogonalized(op, columns)
          : columns.map((column) => normalized(op, column));
        return { w: units.reduce((value, unit) => reduced(op, value, unit, 2), w) };
      },
    ),
  },
  peft: {
    types: ['HRA'],
    tensors: { linear: { u: { key: 'hra_u' } } },
    settings: (fields, module) => ({
      rank: module?.shapes.get('hra_u')?.[1] ?? numberOf(fields, 'r', 8),
      orthogonal: fields.apply_GS === true,
    }),
    patterns: { r: 'rank_pattern' },
    config: ({ rank, orthogonal }) => ({ r: rank, apply_GS: orthogonal }),
  },
});
