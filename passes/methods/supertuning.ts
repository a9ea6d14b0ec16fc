import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { constant, uniform, zeros } from '../../src/initializer.js';
import { defineMethod, type ParamSpecs } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  count: z.int().min(1).default(1).describe('Entries of the weight that change'),
  sparsity: z.number().default(0.99).describe('Share of the entries that do not'),
  rank: z.int().min(1).optional().describe('Rank of a LoRA beside them (Supra)'),
  alpha: z.number().default(16).describe('Numerator of its scaling'),
});
type Config = z.output<typeof config>;
interface Params {
  readonly values: Value;
  readonly places: Value;
  readonly A?: Value;
  readonly B?: Value;
}

/** Few entries and a low-rank update: `W' = W + v` at places chosen by size, `+ s·A B`. */
export default defineMethod({
  id: 'supertuning',
  summary: 'Entries of the weight chosen by size, with a LoRA beside them',
  paper: { title: 'Super-Tuning', arxiv: '2607.09287' },
  config,
  internal: ofFiles('SUPERTUNING'),
  sites: {
    linear: onWeights<Config, keyof Params>(
      ({ inDim, outDim }, { count, rank }) =>
        ({
          values: { shape: [count], init: zeros, key: 'supertuning_values' },
          places: {
            shape: [count],
            init: constant(0),
            dtype: 'int64',
            trainable: false,
            key: 'supertuning_indices',
          },
          ...(rank === undefined
            ? {}
            : {
                A: { shape: [inDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'supertuning_lora_A' },
                B: { shape: [rank, outDim], init: zeros, key: 'supertuning_lora_B' },
              }),
        }) as ParamSpecs<keyof Params>,
      (op, { w }, { values, places, A, B }: Params, { rank = 1, alpha }, { inDim }) => {
        // Places count through [out, in].
        const at = op.Concat(
          [op.Unsqueeze(op.Mod(places, inDim), [1]), op.Unsqueeze(op.Div(places, inDim), [1])],
          { axis: 1 },
        );
        const sparse = op.ScatterND(w, at, op.Add(op.GatherND(w, at), values));
        return {
          w:
            A === undefined || B === undefined
              ? sparse
              : op.Add(sparse, op.Mul(op.MatMul(A, B), alpha / rank)),
        };
      },
    ),
  },
  peft: {
    types: ['SUPERTUNING'],
    refuses: (fields) =>
      fields.save_precomputed_indices === false
        ? 'its places were not saved, and which of equal numbers came first is not known; save it with save_precomputed_indices=True'
        : undefined,
    tensors: {
      linear: {
        values: { key: 'supertuning_values' },
        places: { key: 'supertuning_indices' },
        A: { key: 'supertuning_lora_A.weight', transposed: true },
        B: { key: 'supertuning_lora_B.weight', transposed: true },
      },
    },
    settings: (fields, module) => ({
      count: module?.shapes.get('supertuning_values')?.[0] ?? 1,
      sparsity: numberOf(fields, 'sparsity', 0.99),
      ...(typeof fields.r === 'number' ? { rank: fields.r } : {}),
      alpha: numberOf(fields, 'lora_alpha', 16),
    }),
    config: ({ sparsity, rank, alpha }) => ({
      sparsity,
      r: rank ?? null,
      lora_alpha: rank === undefined ? null : alpha,
      save_precomputed_indices: true,
    }),
  },
});
