import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod, type ParamValues } from './contract/method.js';
import { blockDiagonalFormat } from './parts/lora-peft.js';
import { branchDropout, rankAndAlpha, rslora, scaling } from './parts/low-rank.js';
import { ofFiles } from './parts/on-weights.js';
import { eye } from './parts/rotation.js';

const config = z.strictObject({
  ...rankAndAlpha,
  rslora,
  dropout: branchDropout,
  side: z.enum(['A', 'B', 'none']).default('none').describe('Which factor is block-diagonal'),
  blocks: z.int().min(1).default(1).describe('Its blocks'),
});
type Config = z.output<typeof config>;

/**
 * blockdiag(C₁, C₂, …) [rows, columns] of the blocks side by side, [rows / blocks, columns]:
 * `D[b·m + i, c·n + j] = δ_bc C[i, c·n + j]`.
 */
function blockDiagonal(op: Ops, beside: Value, rows: number, columns: number, blocks: number): Value {
  const pieces = op.Reshape(beside, [1, rows / blocks, blocks, columns / blocks]);
  const diagonal = op.Reshape(eye(op, blocks, beside), [blocks, 1, blocks, 1]);
  return op.Reshape(op.Mul(diagonal, pieces), [rows, columns]);
}

/** A [in, r] and B [r, out] with their zeros. */
function factors(
  op: Ops,
  { A, B }: ParamValues<'A' | 'B'>,
  { inDim, outDim }: LinearDims,
  { rank, side, blocks }: Config,
): readonly [Value, Value] {
  return [
    side === 'A' ? blockDiagonal(op, A, inDim, rank, blocks) : A,
    side === 'B' ? blockDiagonal(op, B, rank, outDim, blocks) : B,
  ];
}

/**
 * Block-diagonal LoRA: `W' = W + s·A B` with one of the factors block-diagonal, so that servers that shard a module need
 * not exchange what it computes. The blocks alone are stored.
 */
export default defineMethod({
  id: 'bd-lora',
  summary: 'LoRA with a block-diagonal factor',
  paper: {
    title: 'Block-Diagonal LoRA for Eliminating Communication Overhead in Tensor Parallel LoRA Serving',
    arxiv: '2510.23346',
  },
  config,
  internal: ofFiles('LORA with use_bdlora'),
  sites: {
    linear: {
      refuses: ({ inDim, outDim }, { rank, side, blocks }) => {
        const size = { A: inDim, B: outDim, none: rank }[side];
        return size % blocks === 0 && rank % blocks === 0
          ? undefined
          : `${size} and the rank ${rank} cannot both be cut into ${blocks} blocks`;
      },
      params: ({ inDim, outDim }, { rank, side, blocks }) => ({
        A: {
          shape: [side === 'A' ? inDim / blocks : inDim, rank],
          init: uniform(1 / Math.sqrt(inDim)),
          key: 'lora_A',
        },
        B: { shape: [side === 'B' ? rank / blocks : rank, outDim], init: zeros, key: 'lora_B' },
      }),
      attach: (op, site, params, settings, { dropout }) => {
        const [A, B] = factors(op, params, site, settings);
        const inner = op.Mul(op.MatMul(dropout(site.x, settings.dropout), A), scaling(settings));
        return { y: op.Add(site.y, op.MatMul(inner, B)) };
      },
      fold: (op, { w }, params, settings, site) => {
        const [A, B] = factors(op, params, site, settings);
        return { w: op.Add(w, op.MatMul(op.Mul(A, scaling(settings)), B)) };
      },
    },
  },
  peft: blockDiagonalFormat,
});
