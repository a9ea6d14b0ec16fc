import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod } from './contract/method.js';
import { numberOf, RANK_AND_ALPHA } from './contract/peft-format.js';
import { rankAndAlpha, scaling } from './parts/low-rank.js';

const config = z.strictObject(rankAndAlpha);

type Factors = Readonly<Record<'w1_a' | 'w1_b' | 'w2_a' | 'w2_b', Value>>;

/** s·(w1_b w1_a) ⊙ (w2_b w2_a), [in, out]. */
function update(op: Ops, { w1_a, w1_b, w2_a, w2_b }: Factors, s: number): Value {
  return op.Mul(op.MatMul(op.Mul(w1_b, s), w1_a), op.MatMul(w2_b, w2_a));
}

/**
 * Low-rank Hadamard product: `W' = W + s·(w1_b w1_a) ⊙ (w2_b w2_a)` with factors [in, r] and [r, out], the transposes of
 * PEFT's. The update has rank r² at twice the parameters of LoRA. The product is a low-rank update itself, whose factors
 * are the row-wise and column-wise Khatri–Rao products [in, r²] and [r², out]; where these are smaller than W the branch
 * `y' = y + s·x (w1_b ∗ w2_b) (w1_a ∗ w2_a)` is trained, otherwise the weight. w2_b starts at zero and the rest
 * Kaiming-uniform as in PEFT, so the adapted model equals the base before training.
 */
export default defineMethod({
  id: 'loha',
  summary: 'Elementwise product of two low-rank updates',
  paper: { title: 'FedPara: Low-Rank Hadamard Product', arxiv: '2108.06098' },
  config,
  sites: {
    linear: {
      // Bounds are 1/√(last axis of PEFT's tensor).
      params: ({ inDim, outDim }, { rank }) => ({
        w1_a: { shape: [rank, outDim], init: uniform(1 / Math.sqrt(rank)), key: 'hada_w1_a' },
        w1_b: { shape: [inDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'hada_w1_b' },
        w2_a: { shape: [rank, outDim], init: uniform(1 / Math.sqrt(rank)), key: 'hada_w2_a' },
        w2_b: { shape: [inDim, rank], init: zeros, key: 'hada_w2_b' },
      }),
      attach: (op, site, factors, config) => {
        const { inDim, outDim } = site;
        const { rank } = config;
        const s = scaling(config);
        if (rank * rank * (inDim + outDim) >= inDim * outDim)
          return { w: op.Add(site.w, update(op, factors, s)) };
        const { w1_a, w1_b, w2_a, w2_b } = factors;
        const into = op.Mul(op.Unsqueeze(op.Mul(w1_b, s), [2]), op.Unsqueeze(w2_b, [1]));
        const out = op.Mul(op.Unsqueeze(w1_a, [1]), op.Unsqueeze(w2_a, [0]));
        const inner = op.MatMul(site.x, op.Reshape(into, [inDim, rank * rank]));
        return { y: op.Add(site.y, op.MatMul(inner, op.Reshape(out, [rank * rank, outDim]))) };
      },
      fold: (op, { w }, factors, config) => ({ w: op.Add(w, update(op, factors, scaling(config))) }),
    },
  },
  peft: {
    types: ['LOHA'],
    tensors: {
      linear: {
        w1_a: { key: 'hada_w1_a', transposed: true },
        w1_b: { key: 'hada_w1_b', transposed: true },
        w2_a: { key: 'hada_w2_a', transposed: true },
        w2_b: { key: 'hada_w2_b', transposed: true },
      },
    },
    patterns: RANK_AND_ALPHA,
    settings: (config) => ({ rank: numberOf(config, 'r', 8), alpha: numberOf(config, 'alpha', 8) }),
    config: ({ rank, alpha }) => ({ r: rank, alpha }),
  },
});
