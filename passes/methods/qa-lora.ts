import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod } from './contract/method.js';
import { pooledFormat } from './parts/lora-peft.js';
import { branchDropout, rankAndAlpha, rslora, scaling } from './parts/low-rank.js';
import { ofFiles } from './parts/on-weights.js';

const config = z.strictObject({
  ...rankAndAlpha,
  rslora,
  dropout: branchDropout,
  group: z.int().min(1).default(16).describe('Inputs whose mean A reads; divides the input of the modules'),
});

/** A for every input, times s·(groups / group size): [in, r] of [groups, r]. */
function spread(op: Ops, A: Value, { inDim }: LinearDims, settings: z.output<typeof config>): Value {
  const { rank, group } = settings;
  const groups = inDim / group;
  const scaled = op.Reshape(op.Mul(A, (scaling(settings) * groups) / group), [groups, 1, rank]);
  return op.Reshape(op.Expand(scaled, [groups, group, rank]), [inDim, rank]);
}

/**
 * Quantisation-aware LoRA: `y' = y + s·pool(x) A B`, pool the means over groups of inputs times the number of groups, so
 * that the update of all weights of a group is one number. It folds into float weights: `W' = W + s·poolᵀ A B`.
 */
export default defineMethod({
  id: 'qa-lora',
  summary: 'LoRA over means of groups of inputs',
  paper: {
    title: 'QA-LoRA: Quantization-Aware Low-Rank Adaptation of Large Language Models',
    arxiv: '2309.14717',
  },
  config,
  internal: ofFiles('LORA with use_qalora'),
  sites: {
    linear: {
      refuses: ({ inDim }, { group }) =>
        inDim % group === 0 ? undefined : `${inDim} inputs cannot be cut into groups of ${group}`,
      params: ({ inDim, outDim }, { rank, group }) => ({
        A: { shape: [inDim / group, rank], init: uniform(Math.sqrt(group / inDim)), key: 'lora_A' },
        B: { shape: [rank, outDim], init: zeros, key: 'lora_B' },
      }),
      attach: (op, site, { A, B }, settings, { dropout }) => {
        const inner = op.MatMul(dropout(site.x, settings.dropout), spread(op, A, site, settings));
        return { y: op.Add(site.y, op.MatMul(inner, B)) };
      },
      fold: (op, { w }, { A, B }, settings, site) => ({
        w: op.Add(w, op.MatMul(spread(op, A, site, settings), B)),
      }),
    },
  },
  peft: pooledFormat,
});
