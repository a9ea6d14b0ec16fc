import { z } from 'zod';
import { zeros } from '../../src/initializer.js';
import { defineMethod } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  rank: z.int().min(1).default(64).describe('Rows r of the block that repeats along the inputs'),
  columns: z.int().min(1).optional().describe('Columns of the block, which repeat too; default: all outputs'),
  square: z.boolean().default(false).describe('Square blocks that multiply those of the weight (PEFT bat)'),
});

/**
 * Matrix shard sharing: `W' = W + D`, the rows of D those of a block [r, out] over and over. `square`: every r × r block
 * of `Wᵀ` becomes `W_b + W_b S + S`, S one block per r outputs.
 */
export default defineMethod({
  id: 'miss',
  summary: 'One block added to the weight over and over',
  paper: {
    title: 'MiSS: Balancing LoRA Performance and Efficiency with Simple Shard Sharing',
    arxiv: '2409.15371',
  },
  config,
  internal: ofFiles('MISS'),
  sites: {
    linear: onWeights(
      ({ outDim }, { rank, columns, square }: z.output<typeof config>) => ({
        block: {
          shape: square ? [outDim / rank, rank, rank] : [rank, columns ?? outDim],
          init: zeros,
          key: 'miss_block',
        },
      }),
      (op, { w }, { block }, { rank, columns, square }, { inDim, outDim }) => {
        if (square) {
          const blocks = op.Reshape(op.Transpose(w, { perm: [1, 0] }), [
            outDim / rank,
            rank,
            inDim / rank,
            rank,
          ]);
          const apart = op.Transpose(blocks, { perm: [2, 0, 1, 3] });
          const change = op.Add(op.MatMul(apart, block), block);
          const back = op.Reshape(op.Transpose(change, { perm: [1, 2, 0, 3] }), [outDim, inDim]);
          return { w: op.Add(w, op.Transpose(back, { perm: [1, 0] })) };
        }
        const wide = columns === undefined ? 1 : outDim / columns;
        const all = op.Tile(block, [Math.ceil(inDim / rank), wide]);
        return { w: op.Add(w, inDim % rank === 0 ? all : op.Slice(all, [0], [inDim], [0])) };
      },
    ),
  },
  peft: {
    types: ['MISS', 'BONE'],
    tensors: { linear: { block: { key: 'miss_block' } } },
    settings: (fields, module) => {
      const [first, second] = module?.shapes.get('miss_block') ?? [];
      const square = fields.init_weights === 'bat';
      return {
        rank: (square ? second : first) ?? numberOf(fields, 'r', 64),
        ...(fields.init_weights === 'mini' && second !== undefined ? { columns: second } : {}),
        square,
      };
    },
    patterns: { r: 'rank_pattern' },
    config: ({ rank, columns, square }) => ({
      r: rank,
      ...(columns === undefined ? {} : { mini_r: columns }),
      init_weights: square === true ? 'bat' : columns === undefined ? true : 'mini',
    }),
  },
});
