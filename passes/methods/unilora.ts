import { z } from 'zod';
import { constant, ones, uniform } from '../../src/initializer.js';
import { defineMethod } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  rank: z.int().min(1).default(4).describe('Inner dimension r of the update'),
  length: z.int().min(1).default(256).describe('Length of the vector that all modules share'),
});
type Config = z.output<typeof config>;

/** One vector for all modules: `W' = W + A B` with every entry of A and B an entry of it, times a fixed factor. */
export default defineMethod({
  id: 'unilora',
  summary: 'All low-rank updates made of one vector',
  paper: { title: 'Uni-LoRA: One Vector is All You Need', arxiv: '2506.00799' },
  config,
  internal: ofFiles('UNILORA'),
  startsAsBase: false,
  shared: (_sites, { length }) => ({
    theta: { shape: [length], init: uniform(0.02), key: 'unilora_theta_d' },
  }),
  sites: {
    linear: onWeights<Config, 'indicesA' | 'indicesB' | 'scalesA' | 'scalesB', 'theta'>(
      ({ inDim, outDim }, { rank }) => {
        const places = { init: constant(0), dtype: 'int64', trainable: false } as const;
        const factors = { init: ones, trainable: false };
        return {
          indicesA: { shape: [inDim, rank], key: 'unilora_indices_A', ...places },
          indicesB: { shape: [rank, outDim], key: 'unilora_indices_B', ...places },
          scalesA: { shape: [inDim, rank], key: 'unilora_scales_A', ...factors },
          scalesB: { shape: [rank, outDim], key: 'unilora_scales_B', ...factors },
        };
      },
      (op, { w }, { theta, indicesA, indicesB, scalesA, scalesB }) => {
        const A = op.Mul(op.Gather(theta, indicesA), scalesA);
        const B = op.Mul(op.Gather(theta, indicesB), scalesB);
        return { w: op.Add(w, op.MatMul(A, B)) };
      },
    ),
  },
  peft: {
    types: ['UNILORA'],
    refuses: (fields) =>
      fields.save_indices === true
        ? undefined
        : "which entry goes where was not saved, and numpy's generator would have to draw it again; save it with save_indices=True",
    tensors: {
      linear: {
        indicesA: { key: 'unilora_indices_A', transposed: true },
        indicesB: { key: 'unilora_indices_B', transposed: true },
        scalesA: { key: 'unilora_scales_A', transposed: true },
        scalesB: { key: 'unilora_scales_B', transposed: true },
      },
    },
    shared: { theta: { key: 'unilora_theta_d' } },
    settings: (fields) => ({
      rank: numberOf(fields, 'r', 4),
      length: numberOf(fields, 'theta_d_length', 256),
    }),
    config: ({ rank, length }) => ({ r: rank, theta_d_length: length, save_indices: true }),
  },
});
