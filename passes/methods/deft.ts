import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { normal, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod, type ParamSpecs, type ParamValues } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { orthonormal } from './parts/householder.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  rank: z.int().min(1).default(8).describe('Dimension r of the subspace'),
  decomposition: z.enum(['relu', 'qr']).default('relu').describe('How P becomes a projection'),
  injects: z.boolean().default(true).describe('Whether something takes the place of what is taken out'),
  scaling: z.number().default(1).describe('Factor on what is put in'),
});
type Config = z.output<typeof config>;
type Params = ParamValues<'P'> & { readonly R?: Value };

/** Q and V [out, r] of the projection Q Vᵀ. */
function projection(
  op: Ops,
  P: Value,
  { rank, decomposition }: Config,
  { outDim }: LinearDims,
): readonly [Value, Value] {
  if (decomposition === 'relu') return [P, op.Relu(P)];
  const Q = orthonormal(op, P, outDim, rank);
  return [Q, Q];
}

/**
 * Takes a subspace of the outputs out of the weight and puts something else there: `W' = W + (s·R − W V) Qᵀ`, with
 * `Q = P`, `V = relu(P)`, or both the orthonormal factor of P. Without R (PaRa) it is taken out alone.
 */
export default defineMethod({
  id: 'deft',
  summary: 'A subspace of the outputs, replaced',
  paper: {
    title: 'DEFT: Decompositional Efficient Fine-Tuning for Text-to-Image Models',
    arxiv: '2509.22793',
  },
  config,
  internal: ofFiles('DEFT'),
  startsAsBase: false,
  sites: {
    linear: onWeights<Config, 'P' | 'R'>(
      ({ inDim, outDim }, { rank, injects }) => {
        const P = { shape: [outDim, rank], init: normal(0.02), key: 'deft_P' };
        return (
          injects ? { P, R: { shape: [inDim, rank], init: zeros, key: 'deft_R' } } : { P }
        ) as ParamSpecs<'P' | 'R'>;
      },
      (op, { w }, { P, R }: Params, settings, site) => {
        const [Q, V] = projection(op, P, settings, site);
        const out = op.MatMul(w, V);
        const change = R === undefined ? op.Neg(out) : op.Sub(op.Mul(R, settings.scaling), out);
        return { w: op.Add(w, op.MatMul(change, op.Transpose(Q, { perm: [1, 0] }))) };
      },
    ),
  },
  peft: {
    types: ['DEFT'],
    tensors: { linear: { P: { key: 'deft_P' }, R: { key: 'deft_R', transposed: true } } },
    settings: (fields, module) => {
      const rank = module?.shapes.get('deft_P')?.[1] ?? numberOf(fields, 'r', 8);
      const alpha = numberOf(fields, 'alpha', 0);
      return {
        rank,
        decomposition: fields.decomposition_method ?? 'relu',
        injects: fields.para !== true,
        scaling: alpha === 0 ? 1 : alpha / rank,
      };
    },
    config: ({ rank, decomposition, injects, scaling }, modules) => {
      // PEFT cuts the rank at small modules, and says so nowhere.
      const most = Math.max(...modules.map(({ settings }) => Number(settings.rank)));
      const alpha = Number(scaling) * Number(rank);
      return {
        r: most,
        decomposition_method: decomposition,
        para: injects !== true,
        alpha: scaling === 1 ? null : Math.round(alpha),
      };
    },
  },
});
