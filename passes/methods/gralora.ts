import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { uniform, zeros } from '../../src/initializer.js';
import { defineMethod, type ParamSpecs } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  rank: z.int().min(1).default(32).describe('Rank r, of which every block has r / k'),
  blocks: z.int().min(1).default(2).describe('Blocks k along each side of the weight'),
  hybridRank: z.int().min(0).default(0).describe('Rank of a LoRA of the whole weight beside the blocks'),
  alpha: z.number().default(64).describe('Numerator of the scaling s = alpha / (r + hybrid rank)'),
});
type Config = z.output<typeof config>;
interface Params {
  readonly A: Value;
  readonly B: Value;
  readonly wholeA?: Value;
  readonly wholeB?: Value;
}

/**
 * LoRA by blocks: the weight is cut k times along both sides, and block (n, m) changes by
 * `s·A[n][:, m·q …] B[m][n·q …, :]` with q = r / k columns and rows. `W' = W + s·(blocks + A' B')`.
 */
export default defineMethod({
  id: 'gralora',
  summary: 'A low-rank update for every block of the weight',
  paper: {
    title: 'GraLoRA: Granular Low-Rank Adaptation for Parameter-Efficient Fine-Tuning',
    arxiv: '2505.20355',
  },
  config,
  internal: ofFiles('GRALORA'),
  sites: {
    linear: onWeights<Config, keyof Params>(
      ({ inDim, outDim }, { rank, blocks, hybridRank }) =>
        ({
          A: { shape: [blocks, inDim / blocks, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'gralora_A' },
          B: { shape: [blocks, rank, outDim / blocks], init: zeros, key: 'gralora_B' },
          ...(hybridRank === 0
            ? {}
            : {
                wholeA: {
                  shape: [inDim, hybridRank],
                  init: uniform(1 / Math.sqrt(inDim)),
                  key: 'gralora_A_general',
                },
                wholeB: { shape: [hybridRank, outDim], init: zeros, key: 'gralora_B_general' },
              }),
        }) as ParamSpecs<keyof Params>,
      (
        op,
        { w },
        { A, B, wholeA, wholeB }: Params,
        { rank, blocks, hybridRank, alpha },
        { inDim, outDim },
      ) => {
        const own = rank / blocks;
        const left = op.Reshape(A, [blocks, inDim / blocks, blocks, own]);
        const right = op.Reshape(B, [blocks, blocks, own, outDim / blocks]);
        const product = op.MatMul(
          op.Transpose(left, { perm: [0, 2, 1, 3] }),
          op.Transpose(right, { perm: [1, 0, 2, 3] }),
        );
        const update = op.Reshape(op.Transpose(product, { perm: [0, 2, 1, 3] }), [inDim, outDim]);
        const all =
          wholeA === undefined || wholeB === undefined ? update : op.Add(update, op.MatMul(wholeA, wholeB));
        return { w: op.Add(w, op.Mul(all, alpha / (rank + hybridRank))) };
      },
    ),
  },
  peft: {
    types: ['GRALORA'],
    tensors: {
      linear: {
        A: { key: 'gralora_A' },
        B: { key: 'gralora_B' },
        wholeA: { key: 'gralora_A_general.weight', transposed: true },
        wholeB: { key: 'gralora_B_general.weight', transposed: true },
      },
    },
    settings: (fields) => ({
      rank: numberOf(fields, 'r', 32),
      blocks: numberOf(fields, 'gralora_k', 2),
      hybridRank: numberOf(fields, 'hybrid_r', 0),
      alpha: numberOf(fields, 'alpha', 64),
    }),
    config: ({ rank, blocks, hybridRank, alpha }) => ({
      r: rank,
      gralora_k: blocks,
      hybrid_r: hybridRank,
      alpha,
    }),
  },
});
