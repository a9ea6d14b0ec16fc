import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { constant, ones, uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({ rank: z.int().min(1).default(8).describe('Number r of directions') });

/** Length along an axis, as PEFT bounds it from below. */
function lengths(op: Ops, matrix: Value, axis: number): Value {
  const squares = op.ReduceSumSquare(matrix, [axis], { keepdims: 0 });
  return op.Max([op.Sqrt(squares), 1e-4]);
}

/**
 * Decoupled low-rank adaptation: `W' = W + n ⊙ (A D B)` with `D = λ / (r ‖a_i‖ ‖b_i‖)` on the diagonal, so that λ alone
 * says how far the weight moves, and n the norms of the rows of the base's weight.
 */
export default defineMethod({
  id: 'delora',
  summary: 'Low-rank update whose directions and strength are trained apart',
  paper: { title: 'Decoupling Angles and Strength in Low-rank Adaptation', arxiv: '2503.18225' },
  config,
  internal: ofFiles('DELORA'),
  sites: {
    linear: onWeights(
      ({ inDim, outDim }, { rank }: z.output<typeof config>) => ({
        A: { shape: [inDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'delora_A' },
        B: { shape: [rank, outDim], init: zeros, key: 'delora_B' },
        lambda: { shape: [1], init: constant(15), key: 'delora_lambda' },
        norms: { shape: [inDim], init: ones, trainable: false, key: 'delora_w_norm' },
      }),
      (op, { w }, { A, B, lambda, norms }, { rank }) => {
        const diagonal = op.Div(op.Div(lambda, rank), op.Mul(lengths(op, A, 0), lengths(op, B, 1)));
        const into = op.Mul(op.Mul(A, diagonal), op.Unsqueeze(norms, [1]));
        return { w: op.Add(w, op.MatMul(into, B)) };
      },
    ),
  },
  peft: {
    types: ['DELORA'],
    tensors: {
      linear: {
        A: { key: 'delora_A', transposed: true },
        B: { key: 'delora_B', transposed: true },
        lambda: { key: 'delora_lambda' },
        norms: { key: 'delora_w_norm' },
      },
    },
    patterns: { r: 'rank_pattern' },
    settings: (fields) => ({ rank: numberOf(fields, 'r', 8) }),
    config: ({ rank }) => ({ r: rank }),
  },
});
