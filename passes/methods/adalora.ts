import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { normal, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { rankAllocator } from './parts/adalora-allocator.js';

const config = z.strictObject({
  rank: z.int().min(1).default(12).describe('Rank of every update before allocation'),
  targetRank: z.int().min(1).default(8).describe('Mean rank of the updates after allocation'),
  alpha: z.number().positive().default(8).describe('Numerator of the scaling s = alpha / (rank + 1e-5)'),
  dropout: z.number().min(0).lt(1).default(0).describe("Dropout on the branch's input while training"),
  initialSteps: z.int().min(0).default(0).describe('Steps at full rank before allocation begins'),
  finalSteps: z.int().min(0).default(0).describe('Last steps, whose ranks stay as they are'),
  interval: z.int().min(1).default(1).describe('Steps between two allocations'),
  beta1: z.number().gt(0).lt(1).default(0.85).describe('Smoothing of the sensitivity |p · gradient|'),
  beta2: z.number().gt(0).lt(1).default(0.85).describe('Smoothing of its uncertainty'),
  orthogonality: z.number().min(0).default(0.5).describe('Factor of the penalty on skew factors A and B'),
});

/** The rank before allocation counts, for good. */
function scaling({ rank, alpha }: z.output<typeof config>): number {
  return alpha / (rank + 1e-5);
}

/** ‖G − I‖_F of G [rank, rank]. */
function fromIdentity(op: Ops, gram: Value, rank: number): Value {
  const identity = Array.from({ length: rank * rank }, (_, i) => (i % (rank + 1) === 0 ? 1 : 0));
  return op.Sqrt(op.ReduceSumSquare(op.Sub(op.Reshape(gram, [-1]), identity), { keepdims: 0 }));
}

/**
 * Low-rank adaptation with ranks that are allocated while training: `y' = y + s·(x A ⊙ E) B`, E of one number per rank.
 * E starts at zero, A and B at N(0, 0.02). The loss gets `orthogonality · mean (‖AᵀA − I‖_F, ‖BBᵀ − I‖_F)` over all
 * factors, so that A, E and B behave like a singular value decomposition. Between steps the triplets of least
 * importance over all modules are masked in E, until the mean rank is `targetRank`: see `adalora-allocator.ts`.
 */
export default defineMethod({
  id: 'adalora',
  summary: 'Low-rank update whose ranks move to the modules that need them',
  paper: {
    title: 'AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning',
    arxiv: '2303.10512',
  },
  config,
  learningRate: 1e-2,
  sites: {
    linear: {
      params: ({ inDim, outDim }, { rank }) => ({
        A: { shape: [inDim, rank], init: normal(0.02), key: 'lora_A' },
        E: { shape: [1, rank], init: zeros, key: 'lora_E' },
        B: { shape: [rank, outDim], init: normal(0.02), key: 'lora_B' },
      }),
      attach: (op, { x, y }, { A, E, B }, config, { dropout }) => ({
        y: op.Add(
          y,
          op.MatMul(op.Mul(op.MatMul(dropout(x, config.dropout), A), op.Mul(E, scaling(config))), B),
        ),
      }),
      byRow: { params: { A: 'stacked', E: 'stacked', B: 'stacked' } },
      fold: (op, { w }, { A, E, B }, config) => ({
        w: op.Add(w, op.Mul(op.MatMul(op.Mul(A, E), B), scaling(config))),
      }),
      penalty: (op, { A, B }, { rank, orthogonality }, sites) => {
        if (orthogonality === 0) return undefined;
        const skewA = fromIdentity(op, op.MatMul(op.Transpose(A, { perm: [1, 0] }), A), rank);
        const skewB = fromIdentity(op, op.MatMul(B, op.Transpose(B, { perm: [1, 0] })), rank);
        return op.Mul(op.Add(skewA, skewB), orthogonality / (2 * sites));
      },
    },
  },
  procedure: rankAllocator,
  peft: {
    types: ['ADALORA'],
    // Files hold the ranks that allocation left; the scaling counts those before it.
    tensors: {
      linear: {
        A: { key: 'lora_A', transposed: true, padded: true },
        E: { key: 'lora_E', transposed: true, padded: true },
        B: { key: 'lora_B', transposed: true, padded: true },
      },
    },
    settings: (config) => ({
      rank: numberOf(config, 'init_r', 12),
      targetRank: numberOf(config, 'target_r', 8),
      alpha: numberOf(config, 'lora_alpha', 8),
      dropout: numberOf(config, 'lora_dropout', 0),
    }),
    config: ({ rank, targetRank, alpha, dropout }) => ({
      init_r: rank,
      target_r: targetRank,
      lora_alpha: alpha,
      lora_dropout: dropout,
      r: rank,
      total_step: 1,
    }),
  },
});
