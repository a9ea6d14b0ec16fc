import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { constant, uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { shapeOf } from '../../src/value-type.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod, type ParamValues } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { branchDropout } from './parts/low-rank.js';

const config = z.strictObject({
  rank: z.int().min(1).default(256).describe('Inner dimension r of the shared matrices'),
  dInitial: z.number().default(0.1).describe('Initial value of the entries of d'),
  dropout: branchDropout,
});

/** The part of the shared matrices that fits the module. */
function matrices(
  op: Ops,
  { A, B }: ParamValues<'A' | 'B'>,
  { inDim, outDim }: LinearDims,
): readonly [Value, Value] {
  return [first(op, A, inDim, 0), first(op, B, outDim, 1)];
}

/** The first `size` entries along an axis. */
function first(op: Ops, value: Value, size: number, axis: number): Value {
  const whole = shapeOf(value)?.[axis] === size;
  return whole ? value : op.Slice(value, [0], [size], [axis]);
}

/**
 * Vector-based random matrix adaptation: `y' = y + b ⊙ ((d ⊙ (x A)) B)`, without alpha. A [in, r] and B [r, out] are
 * random, frozen and one pair for all modules, made for the largest and cut to fit the others; only the vectors d [r] and
 * b [out] train. As in PEFT A and B are Kaiming-uniform (bound √(6/fan-in), seeded), d starts at 0.1 and b at zero, so
 * the adapted model equals the base before training.
 */
export default defineMethod({
  id: 'vera',
  summary: 'Two trained vectors around random matrices that all modules share',
  paper: { title: 'VeRA: Vector-based Random Matrix Adaptation', arxiv: '2310.11454' },
  config,
  learningRate: 4e-3,
  shared: (sites, { rank }) => {
    const linear = sites.filter((site) => site.kind === 'linear');
    const inDim = Math.max(...linear.map((site) => site.inDim));
    const outDim = Math.max(...linear.map((site) => site.outDim));
    return {
      A: { shape: [inDim, rank], init: uniform(Math.sqrt(6 / inDim)), trainable: false, key: 'vera_A' },
      B: { shape: [rank, outDim], init: uniform(Math.sqrt(6 / rank)), trainable: false, key: 'vera_B' },
    };
  },
  sites: {
    linear: {
      params: ({ outDim }, { rank, dInitial }) => ({
        b: { shape: [outDim], init: zeros, key: 'vera_lambda_b' },
        d: { shape: [rank], init: constant(dInitial), key: 'vera_lambda_d' },
      }),
      attach: (op, site, { A, B, b, d }, { dropout: p }, { dropout }) => {
        const [into, out] = matrices(op, { A, B }, site);
        const inner = op.Mul(op.MatMul(dropout(site.x, p), into), d);
        return { y: op.Add(site.y, op.Mul(op.MatMul(inner, out), b)) };
      },
      byRow: { params: { A: 'common', B: 'common', b: 'vector', d: 'vector' } },
      fold: (op, { w }, { A, B, b, d }, _config, site) => {
        const [into, out] = matrices(op, { A, B }, site);
        return { w: op.Add(w, op.MatMul(op.Mul(into, d), op.Mul(out, b))) };
      },
    },
  },
  peft: {
    types: ['VERA'],
    tensors: { linear: { b: { key: 'vera_lambda_b' }, d: { key: 'vera_lambda_d' } } },
    shared: { A: { key: 'vera_A', transposed: true }, B: { key: 'vera_B', transposed: true } },
    settings: (config) => ({
      rank: numberOf(config, 'r', 256),
      dInitial: numberOf(config, 'd_initial', 0.1),
      dropout: numberOf(config, 'vera_dropout', 0),
    }),
    config: ({ rank, dInitial, dropout }) => ({
      r: rank,
      d_initial: dInitial,
      vera_dropout: dropout,
      save_projection: true,
    }),
  },
});
