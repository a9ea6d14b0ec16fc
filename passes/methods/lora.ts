import { z } from 'zod';
import { normal, uniform, zeros } from '../../src/initializer.js';
import { defineMethod } from './method.js';

const config = z.strictObject({
  rank: z.int().min(1).default(8).describe('Inner dimension r of the update A·B'),
  alpha: z.number().default(16).describe('Numerator of the scaling s = alpha / rank'),
  rslora: z.boolean().default(false).describe('Scale by alpha / √rank (arXiv 2312.03732)'),
  dropout: z.number().min(0).lt(1).default(0).describe("Dropout on the branch's input while training"),
});

/** s = α/r, or α/√r for rsLoRA. */
function scaling({ rank, alpha, rslora }: z.output<typeof config>): number {
  return alpha / (rslora ? Math.sqrt(rank) : rank);
}

/**
 * Low-rank adaptation. Linear: `y' = y + s·(x A) B`; embedding: `y' = y + s·A[ids] B`. One factor starts at zero, so the
 * adapted model equals the base before training. Initial values as in PEFT: Kaiming-uniform A (bound 1/√in) and zero B,
 * zero A and N(0, 1) B for embeddings.
 */
export default defineMethod({
  id: 'lora',
  summary: 'Low-rank update of linear and embedding weights',
  paper: { title: 'LoRA: Low-Rank Adaptation of Large Language Models', arxiv: '2106.09685' },
  config,
  sites: {
    linear: {
      params: ({ inDim, outDim }, { rank }) => ({
        A: { shape: [inDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'lora_A' },
        B: { shape: [rank, outDim], init: zeros, key: 'lora_B' },
      }),
      attach: (op, { x, y }, { A, B }, config, { dropout }) => ({
        // The scale sits on [..., rank], the smallest tensor of the branch.
        y: op.Add(y, op.MatMul(op.Mul(op.MatMul(dropout(x, config.dropout), A), scaling(config)), B)),
      }),
      fold: (op, { w }, { A, B }, config) => ({
        w: op.Add(w, op.Mul(op.MatMul(A, B), scaling(config))),
      }),
    },
    embedding: {
      params: ({ vocab, dim }, { rank }) => ({
        A: { shape: [vocab, rank], init: zeros, key: 'lora_embedding_A' },
        B: { shape: [rank, dim], init: normal(1), key: 'lora_embedding_B' },
      }),
      attach: (op, { ids, y }, { A, B }, config) => ({
        y: op.Add(y, op.MatMul(op.Mul(op.Gather(A, ids), scaling(config)), B)),
      }),
      fold: (op, { w }, { A, B }, config) => ({
        w: op.Add(w, op.Mul(op.MatMul(A, B), scaling(config))),
      }),
    },
  },
});
