import { z } from 'zod';
import { constant, uniform, zeros } from '../../src/initializer.js';
import { defineMethod } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  rank: z.int().min(1).default(256).describe('Inner dimension r of the shared matrices'),
});
type Config = z.output<typeof config>;

/**
 * Probabilistic VeRA at its mean: `W' = W + (A d) (B b)` with the first r columns of the shared A [in, 2r] and the first r
 * numbers of d [2r]; the others are log-variances, from which training samples.
 */
export default defineMethod({
  id: 'pvera',
  summary: 'VeRA whose inner values are drawn while training',
  paper: { title: 'PVeRA: Probabilistic Vector-Based Random Matrix Adaptation', arxiv: '2512.07703' },
  config,
  internal: ofFiles('PVERA'),
  shared: (sites, { rank }) => {
    const linear = sites.filter((site) => site.kind === 'linear');
    const inDim = Math.max(...linear.map((site) => site.inDim));
    const outDim = Math.max(...linear.map((site) => site.outDim));
    return {
      A: { shape: [inDim, 2 * rank], init: uniform(Math.sqrt(6 / inDim)), trainable: false, key: 'pvera_A' },
      B: { shape: [rank, outDim], init: uniform(Math.sqrt(6 / rank)), trainable: false, key: 'pvera_B' },
    };
  },
  sites: {
    linear: onWeights<Config, 'b' | 'd', 'A' | 'B'>(
      ({ outDim }, { rank }) => ({
        b: { shape: [outDim], init: zeros, key: 'pvera_lambda_b' },
        d: { shape: [2 * rank], init: constant(0.1), key: 'pvera_lambda_d' },
      }),
      (op, { w }, { A, B, b, d }, { rank }, { inDim, outDim }) => {
        const into = op.Mul(op.Slice(A, [0, 0], [inDim, rank], [0, 1]), op.Slice(d, [0], [rank], [0]));
        const out = op.Mul(op.Slice(B, [0], [outDim], [1]), b);
        return { w: op.Add(w, op.MatMul(into, out)) };
      },
    ),
  },
  peft: {
    types: ['PVERA'],
    refuses: (fields) =>
      fields.sample_at_inference === true
        ? 'it draws at random at every run, which no weight does; set sample_at_inference to false for its mean'
        : undefined,
    tensors: { linear: { b: { key: 'pvera_lambda_b' }, d: { key: 'pvera_lambda_d' } } },
    shared: { A: { key: 'pvera_A', transposed: true }, B: { key: 'pvera_B', transposed: true } },
    settings: (fields) => ({ rank: numberOf(fields, 'r', 256) }),
    config: ({ rank }) => ({ r: rank, save_projection: true }),
  },
});
