import { z } from 'zod';
import { normal, uniform, zeros } from '../../src/initializer.js';
import { derived } from './contract/derived.js';
import { defineMethod } from './contract/method.js';
import { once } from './parts/linear-algebra/once.js';
import { type Svd, truncatedSvd } from './parts/linear-algebra/truncated-svd.js';
import { kasaFormat } from './parts/lora-peft.js';
import { branchDropout, rankAndAlpha, rslora, scaling } from './parts/low-rank.js';
import { ofFiles } from './parts/on-weights.js';

const config = z.strictObject({ ...rankAndAlpha, rslora, dropout: branchDropout });

const decompose = once((w) => truncatedSvd(w, Math.min(...w.dims)));

/** The `rank` triplets of the smallest singular values: [in, rank] with the values, or [rank, out]. */
function smallest(rank: number, side: 'left' | 'right'): ReturnType<typeof derived> {
  return derived(
    (_op, { w }) => w,
    (w) => {
      const { dims, data } = w;
      const [rows = 0, columns = 0] = dims;
      const { left, values, right } = decompose({ dims, data }, 0) as Svd;
      const all = values.length;
      const first = all - rank;
      if (side === 'right') return right.slice(first * columns);
      return Float64Array.from({ length: rows * rank }, (_, i) => {
        const triplet = first + (i % rank);
        return (left[Math.floor(i / rank) * all + triplet] as number) * (values[triplet] as number);
      });
    },
  );
}

/**
 * Knowledge-aware singular-value adaptation: `W' = (W − U_r Σ_r V_r) + s·A diag(d) B`. U_r Σ_r V_r are the r triplets of
 * the smallest singular values, which the base lost before training and which are computed from it again, as PEFT does.
 */
export default defineMethod({
  id: 'kasa',
  summary: 'LoRA with singular values between its factors, in place of the smallest ones of the weight',
  paper: {
    title: 'KaSA: Knowledge-Aware Singular-Value Adaptation of Large Language Models',
    arxiv: '2412.06071',
  },
  config,
  internal: ofFiles('LORA with kasa_config'),
  startsAsBase: false,
  sites: {
    linear: {
      refuses: ({ inDim, outDim }, { rank }) =>
        rank < Math.min(inDim, outDim)
          ? undefined
          : `a ${inDim} × ${outDim} weight keeps nothing without its ${rank} smallest singular values`,
      params: ({ inDim, outDim }, { rank }) => ({
        A: { shape: [inDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'lora_A' },
        B: { shape: [rank, outDim], init: zeros, key: 'lora_B' },
        diagonal: { shape: [rank], init: normal(1), key: 'lora_diag' },
        left: { shape: [inDim, rank], init: smallest(rank, 'left'), trainable: false, key: 'removed_A' },
        right: { shape: [rank, outDim], init: smallest(rank, 'right'), trainable: false, key: 'removed_B' },
      }),
      attach: (op, { x, y }, { A, B, diagonal, left, right }, settings, { dropout }) => {
        const inner = op.MatMul(dropout(x, settings.dropout), A);
        const branch = op.MatMul(op.Mul(inner, op.Mul(diagonal, scaling(settings))), B);
        return { y: op.Add(y, op.Sub(branch, op.MatMul(op.MatMul(x, left), right))) };
      },
      fold: (op, { w }, { A, B, diagonal, left, right }, settings) => {
        const update = op.MatMul(op.Mul(A, op.Mul(diagonal, scaling(settings))), B);
        return { w: op.Add(op.Sub(w, op.MatMul(left, right)), update) };
      },
    },
  },
  peft: kasaFormat,
});
