import { z } from 'zod';
import { uniform, zeros } from '../../src/initializer.js';
import { derived } from './contract/derived.js';
import { defineMethod } from './contract/method.js';
import { once } from './parts/linear-algebra/once.js';
import { type Svd, truncatedSvd } from './parts/linear-algebra/truncated-svd.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  trained: z.int().min(1).default(8).describe('Trained singular triplets: those of the smallest values'),
});

const decompose = once(truncatedSvd);

/** What stays: the longest singular triplets. */
function kept(rank: number, of: (svd: Svd) => Float64Array): ReturnType<typeof derived> {
  return derived(
    (_op, { w }) => w,
    (matrix) => of(decompose(matrix, rank)),
  );
}

/**
 * Orthogonal subspace fine-tuning: `W' = U_k Σ_k V_k + V S U`, the longest k singular triplets of W, which stay, and those
 * that were trained. The former are computed from the base again, as PEFT does.
 */
export default defineMethod({
  id: 'osf',
  summary: 'The small singular values of the weight with their vectors, trained',
  paper: {
    title: 'Sculpting Subspaces: Constrained Full Fine-Tuning in LLMs for Continual Learning',
    arxiv: '2504.07097',
  },
  config,
  internal: ofFiles('OSF'),
  startsAsBase: false,
  sites: {
    linear: {
      refuses: ({ inDim, outDim }, { trained }) =>
        trained < Math.min(inDim, outDim)
          ? undefined
          : `a ${inDim} × ${outDim} weight has no more than ${trained} singular values, all of which are trained`,
      ...onWeights(
        ({ inDim, outDim }, { trained }: z.output<typeof config>) => {
          const rank = Math.min(inDim, outDim) - trained;
          return {
            V: { shape: [inDim, trained], init: uniform(1 / Math.sqrt(inDim)), key: 'osf_V_low' },
            S: { shape: [trained], init: zeros, key: 'osf_S_low' },
            U: { shape: [trained, outDim], init: uniform(1 / Math.sqrt(outDim)), key: 'osf_U_low' },
            left: {
              shape: [inDim, rank],
              init: kept(rank, ({ left, values }) => left.map((x, i) => x * (values[i % rank] as number))),
              trainable: false,
              key: 'osf_left_high',
            },
            right: {
              shape: [rank, outDim],
              init: kept(rank, ({ right }) => right),
              trainable: false,
              key: 'osf_right_high',
            },
          };
        },
        (op, _stored, { V, S, U, left, right }) => ({
          w: op.Add(op.MatMul(left, right), op.MatMul(op.Mul(V, S), U)),
        }),
      ),
    },
  },
  peft: {
    types: ['OSF'],
    tensors: {
      linear: {
        V: { key: 'osf_svd_params.V_low', transposed: true },
        S: { key: 'osf_svd_params.S_low' },
        U: { key: 'osf_svd_params.U_low', transposed: true },
      },
    },
    settings: (_fields, module) => ({ trained: module?.shapes.get('osf_svd_params.S_low')?.[0] ?? 8 }),
    // PEFT states how many stay, which is one number only where all modules are as small.
    config: (_settings, modules) => {
      const ranks = modules.map(({ shapes }) => Math.min(...(shapes.left ?? [])));
      return { effective_rank: Math.max(...ranks) };
    },
  },
});
