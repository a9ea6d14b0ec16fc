import { z } from 'zod';
import { normal } from '../../src/initializer.js';
import { derived } from './contract/derived.js';
import { defineMethod } from './contract/method.js';
import { once } from './parts/linear-algebra/once.js';
import { type Svd, truncatedSvd } from './parts/linear-algebra/truncated-svd.js';
import { branchDropout, rankAndAlpha, scaling } from './parts/low-rank.js';

const config = z.strictObject({
  ...rankAndAlpha,
  alpha: z.number().default(16).describe('Numerator of the scaling s = alpha / rank'),
  std: z.number().min(0).default(1e-5).describe('Standard deviation of the initial R'),
  dropout: branchDropout,
});

/** Both factors of a module come from one decomposition. */
const decompose = once((matrix, rank) => truncatedSvd(matrix, rank));

/** A factor of the truncated decomposition, row-major. */
function factor(rank: number, of: (svd: Svd) => Float64Array): ReturnType<typeof derived> {
  return derived(
    (_op, { w }) => w,
    (matrix) => of(decompose(matrix, rank)),
  );
}

/** U Σ, [in, r]. */
function leftFactor({ left, values }: Svd): Float64Array {
  return left.map((entry, i) => entry * (values[i % values.length] ?? 0));
}

/**
 * LoRA-XS: `y' = y + s·((x A) R) B` with A = U_r Σ_r [in, r] and B = V_rᵀ [r, out] from the truncated singular value
 * decomposition of W [in, out], both frozen; only R [r, r] trains, so the number of parameters does not depend on the
 * sizes of the model. Files hold A and B all the same: R means something in their basis alone, and another
 * decomposition, of a base in another dtype, say, gives another one. R starts as N(0, 10⁻¹⁰), almost the base. The sign of each singular pair is fixed: the largest
 * entry of a row of B is positive.
 */
export default defineMethod({
  id: 'lora-xs',
  summary: 'A trained r × r matrix between frozen singular vectors of the weight',
  paper: {
    title: 'LoRA-XS: Low-Rank Adaptation with Extremely Small Number of Parameters',
    arxiv: '2405.17604',
  },
  config,
  learningRate: 4e-3,
  startsAsBase: false,
  sites: {
    linear: {
      refuses: ({ inDim, outDim }, { rank }) =>
        rank <= Math.min(inDim, outDim)
          ? undefined
          : `a ${inDim} × ${outDim} weight has no ${rank} singular vectors; lower the rank, or exclude it`,
      params: ({ inDim, outDim }, { rank, std }) => ({
        A: { shape: [inDim, rank], init: factor(rank, leftFactor), trainable: false, key: 'lora_A' },
        B: {
          shape: [rank, outDim],
          init: factor(rank, ({ right }) => right),
          trainable: false,
          key: 'lora_B',
        },
        R: { shape: [rank, rank], init: normal(std), key: 'lora_xs' },
      }),
      attach: (op, { x, y }, { A, B, R }, config, { dropout }) => {
        const inner = op.MatMul(dropout(x, config.dropout), A);
        return { y: op.Add(y, op.MatMul(op.MatMul(inner, op.Mul(R, scaling(config))), B)) };
      },
      byRow: { params: { A: 'stacked', B: 'stacked', R: 'stacked' } },
      fold: (op, { w }, { A, B, R }, config) => ({
        w: op.Add(w, op.MatMul(op.MatMul(A, op.Mul(R, scaling(config))), B)),
      }),
    },
  },
});
