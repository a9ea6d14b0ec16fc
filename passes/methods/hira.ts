import { z } from 'zod';
import { normal, uniform, zeros } from '../../src/initializer.js';
import { defineMethod } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { besideWindow, overWindow } from './parts/convolution.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  rank: z.int().min(1).default(32).describe('Inner dimension r of the factor'),
});

/** Hadamard high-rank adaptation: `W' = W + W ⊙ (A B)`, without alpha. */
export default defineMethod({
  id: 'hira',
  summary: 'The weight times a low-rank matrix, element by element',
  paper: {
    title: 'HiRA: Parameter-Efficient Hadamard High-Rank Adaptation for Large Language Models',
    arxiv: 'openreview.net/forum?id=TwJrTz9cRS',
  },
  config,
  internal: ofFiles('HIRA'),
  sites: {
    linear: onWeights(
      ({ inDim, outDim }, { rank }: z.output<typeof config>) => ({
        A: { shape: [inDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'hira_A' },
        B: { shape: [rank, outDim], init: zeros, key: 'hira_B' },
      }),
      (op, { w }, { A, B }) => ({ w: op.Add(w, op.Mul(w, op.MatMul(A, B))) }),
    ),
    embedding: {
      params: ({ vocab, dim }, { rank }) => ({
        A: { shape: [vocab, rank], init: zeros, key: 'hira_embedding_A' },
        B: { shape: [rank, dim], init: normal(1), key: 'hira_embedding_B' },
      }),
      attach: (op, { ids, y }, { A, B }) => ({
        y: op.Add(y, op.Mul(y, op.MatMul(op.Gather(A, ids), B))),
      }),
      fold: (op, { w }, { A, B }) => ({ w: op.Add(w, op.Mul(w, op.MatMul(A, B))) }),
    },
  },
  peft: {
    types: ['HIRA'],
    tensors: {
      linear: {
        A: { key: 'hira_A', transposed: true, convolved: overWindow },
        B: { key: 'hira_B', transposed: true, convolved: besideWindow },
      },
      embedding: {
        A: { key: 'hira_embedding_A', transposed: true },
        B: { key: 'hira_embedding_B', transposed: true },
      },
    },
    settings: (fields, module) => ({
      rank:
        module?.shapes.get('hira_A')?.[0] ??
        module?.shapes.get('hira_embedding_A')?.[0] ??
        numberOf(fields, 'r', 32),
    }),
    config: ({ rank }) => ({ r: rank }),
  },
});
