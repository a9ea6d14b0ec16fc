import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { normal, uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { DType } from '../../src/types.js';
import { derived } from './contract/derived.js';
import { type AttachContext, defineMethod, type ParamValues } from './contract/method.js';
import { doraFormat } from './parts/lora-peft.js';
import { branchDropout, rankAndAlpha, rslora, scaling } from './parts/low-rank.js';
import { narrowed, widened } from './parts/precision.js';

const config = z.strictObject({ ...rankAndAlpha, rslora, dropout: branchDropout });

/** ‖W‖ over the in axis, per output. */
const columnNorms = derived((op, { w }) => op.ReduceL2(w, [0], { keepdims: 0 }));

/** Keeps columns that are zero (pruned outputs) zero, where m / n would be 0 / 0. */
const TINY = 1e-30;

/**
 * n = ‖W + s·A B‖ per column, without that matrix:
 * `n² = ‖W‖² + s·Σ_r B ⊙ (2 Aᵀ W + s·(Aᵀ A) B)`, where ‖W‖² is constant and the rest is [r, out].
 */
function updatedNorms(op: Ops, w: Value, A: Value, B: Value, s: number, dtype: DType): Value {
  const W = widened(op, w, dtype);
  const a = widened(op, A, dtype);
  const b = widened(op, B, dtype);
  const transposed = op.Transpose(a, { perm: [1, 0] });
  const cross = op.Mul(op.MatMul(transposed, W), 2);
  const own = op.Mul(op.MatMul(op.MatMul(transposed, a), b), s);
  const change = op.ReduceSum(op.Mul(b, op.Mul(op.Add(cross, own), s)), [0], { keepdims: 0 });
  const squares = op.Add(op.ReduceSumSquare(W, [0], { keepdims: 0 }), change);
  return op.Sqrt(op.Max([squares, TINY]));
}

/** m / n, n a constant to differentiation. */
function gainOf(
  op: Ops,
  { w, dtype }: { readonly w: Value; readonly dtype: DType },
  { A, B, m }: ParamValues<'A' | 'B' | 'm'>,
  s: number,
  stopGradient: AttachContext['stopGradient'],
): Value {
  const norms = stopGradient(updatedNorms(op, w, A, B, s, dtype));
  return narrowed(op, op.Div(widened(op, m, dtype), norms), dtype);
}

/** W' = (W + s·A B) ⊙ m / n, n the column norms of what is scaled. */
function rescaled(op: Ops, w: Value, A: Value, B: Value, m: Value, s: number): Value {
  const updated = op.Add(w, op.Mul(op.MatMul(A, B), s));
  const norms = op.Sqrt(op.Max([op.ReduceSumSquare(updated, [0], { keepdims: 0 }), TINY]));
  return op.Mul(updated, op.Div(m, norms));
}

/**
 * Weight-decomposed low-rank adaptation. Direction and magnitude of every column of the weight are trained apart:
 * `W' = m ⊙ (W + s·A B) / n` with `n = ‖W + s·A B‖` over the in axis, a constant to differentiation. Computed as
 * `y' = y + (m/n − 1) ⊙ x W + (m/n) ⊙ s·x A B`, for embeddings as `y' = (m/n) ⊙ (y + s·A[ids] B)`. m starts as the norms
 * of W and the other factors as in LoRA, so the adapted model equals the base before training. As in PEFT, dropout acts
 * on x in both terms that are added to y.
 */
export default defineMethod({
  id: 'dora',
  summary: 'Low-rank update of the direction of weights, with their magnitudes trained apart',
  paper: { title: 'DoRA: Weight-Decomposed Low-Rank Adaptation', arxiv: '2402.09353' },
  config,
  sites: {
    linear: {
      params: ({ inDim, outDim }, { rank }) => ({
        A: { shape: [inDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'lora_A' },
        B: { shape: [rank, outDim], init: zeros, key: 'lora_B' },
        m: { shape: [outDim], init: columnNorms, key: 'lora_magnitude_vector' },
      }),
      attach: (op, site, params, config, { dropout, stopGradient }) => {
        const { x, y, w, b } = site;
        const { A, B } = params;
        const s = scaling(config);
        const gain = gainOf(op, site, params, s, stopGradient);
        const dropped = dropout(x, config.dropout);
        const branch = op.MatMul(op.Mul(op.MatMul(dropped, A), s), op.Mul(B, gain));
        if (config.dropout > 0) {
          const base = op.Mul(op.MatMul(dropped, w), op.Sub(gain, 1));
          return { y: op.Add(op.Add(y, base), branch) };
        }
        // x W is y − b: with y ⊙ m/n + b ⊙ (1 − m/n) nothing of the size of the weight is multiplied again.
        const scaled = op.Add(op.Mul(y, gain), branch);
        return { y: b === undefined ? scaled : op.Add(scaled, op.Mul(b, op.Sub(1, gain))) };
      },
      fold: (op, { w }, { A, B, m }, config) => ({ w: rescaled(op, w, A, B, m, scaling(config)) }),
    },
    embedding: {
      params: ({ vocab, dim }, { rank }) => ({
        A: { shape: [vocab, rank], init: zeros, key: 'lora_embedding_A' },
        B: { shape: [rank, dim], init: normal(1), key: 'lora_embedding_B' },
        m: { shape: [dim], init: columnNorms, key: 'lora_magnitude_vector' },
      }),
      attach: (op, site, params, config, { stopGradient }) => {
        const s = scaling(config);
        const branch = op.MatMul(op.Mul(op.Gather(params.A, site.ids), s), params.B);
        return { y: op.Mul(op.Add(site.y, branch), gainOf(op, site, params, s, stopGradient)) };
      },
      fold: (op, { w }, { A, B, m }, config) => ({ w: rescaled(op, w, A, B, m, scaling(config)) }),
    },
  },
  peft: doraFormat,
});
