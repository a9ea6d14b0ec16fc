import { z } from 'zod';
import { normal, uniform, zeros } from '../../src/initializer.js';
import { defineMethod, type ParamSpecs } from './method.js';
import { type GateRole, gateOf, gateParams } from './parts/gate.js';

const config = z.strictObject({
  rank: z.int().min(1).default(8).describe('Inner dimension r of the update A·B'),
  alpha: z.number().default(16).describe('Numerator of the scaling s = alpha / rank'),
  rslora: z.boolean().default(false).describe('Scale by alpha / √rank (arXiv 2312.03732)'),
  dropout: z.number().min(0).lt(1).default(0).describe("Dropout on the branch's input while training"),
  gating: z
    .boolean()
    .default(false)
    .describe('Multiply the branch by a learned gate per example instead of s (UniPELT, arXiv 2110.07577)'),
});

/** s = α/r, or α/√r for rsLoRA. The gate takes its place. */
function scaling({ rank, alpha, rslora, gating }: z.output<typeof config>): number {
  return gating ? 1 : alpha / (rslora ? Math.sqrt(rank) : rank);
}

/**
 * Low-rank adaptation. Linear: `y' = y + s·(x A) B`; embedding: `y' = y + s·A[ids] B`. One factor starts at zero, so the
 * adapted model equals the base before training. Initial values as in PEFT: Kaiming-uniform A (bound 1/√in) and zero B,
 * zero A and N(0, 1) B for embeddings. With `gating`, `y' = y + g(x)·(x A) B`, one gate per example: that does not fold.
 */
export default defineMethod({
  id: 'lora',
  summary: 'Low-rank update of linear and embedding weights',
  paper: { title: 'LoRA: Low-Rank Adaptation of Large Language Models', arxiv: '2106.09685' },
  config,
  sites: {
    linear: {
      params: ({ inDim, outDim }, { rank, gating }): ParamSpecs<'A' | 'B' | GateRole> => ({
        A: { shape: [inDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'lora_A' },
        B: { shape: [rank, outDim], init: zeros, key: 'lora_B' },
        ...gateParams(inDim, gating, 'lora_gate'),
      }),
      attach(op, { x, y, path }, { A, B, ...gate }, config, { dropout }) {
        // The factor sits on [..., rank], the smallest tensor of the branch.
        const factor = config.gating ? gateOf(op, x, gate, path) : scaling(config);
        return { y: op.Add(y, op.MatMul(op.Mul(op.MatMul(dropout(x, config.dropout), A), factor), B)) };
      },
      fold: (op, { w }, { A, B }, config) =>
        config.gating
          ? {
              impossible: 'its gate depends on the input, which no weight does; train without gating to fold',
            }
          : { w: op.Add(w, op.Mul(op.MatMul(A, B), scaling(config))) },
    },
    embedding: {
      refuses: (_site, { gating }) =>
        gating ? 'an embedding has no input that a gate could read' : undefined,
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
