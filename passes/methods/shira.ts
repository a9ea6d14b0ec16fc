import { z } from 'zod';
import { constant, zeros } from '../../src/initializer.js';
import { defineMethod, type ParamSpecs } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  count: z.int().min(1).default(1).describe('Entries of the weight that change'),
  rank: z
    .int()
    .min(1)
    .default(32)
    .describe('That number over the sum of the sizes of the module, as PEFT counts'),
});

/** Sparse high-rank adaptation: `W' = W + v` at places (output, input) that were chosen before training. */
export default defineMethod({
  id: 'shira',
  summary: 'Few entries of the weight, wherever they are',
  paper: { title: 'Sparse High Rank Adapters', arxiv: '2406.13175' },
  config,
  internal: ofFiles('SHIRA'),
  sites: {
    linear: onWeights(
      (_site, { count }: z.output<typeof config>): ParamSpecs<'values' | 'places'> => ({
        values: { shape: [count], init: zeros, key: 'shira_weight' },
        places: {
          shape: [2, count],
          init: constant(0),
          dtype: 'int64',
          trainable: false,
          key: 'shira_indices',
        },
      }),
      (op, { w }, { values, places }) => {
        const rows = op.Slice(places, [1], [2], [0]);
        const columns = op.Slice(places, [0], [1], [0]);
        const at = op.Transpose(op.Concat([rows, columns], { axis: 0 }), { perm: [1, 0] });
        return { w: op.ScatterND(w, at, op.Add(op.GatherND(w, at), values)) };
      },
    ),
  },
  peft: {
    types: ['SHIRA'],
    tensors: { linear: { values: { key: 'shira_weight' }, places: { key: 'shira_indices' } } },
    settings: (fields, module) => ({
      count: module?.shapes.get('shira_weight')?.[0] ?? 1,
      rank: numberOf(fields, 'r', 32),
    }),
    config: ({ rank }) => ({ r: rank, mask_type: 'random' }),
  },
});
