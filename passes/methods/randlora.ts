import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod, type ParamValues } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  rank: z.int().min(1).default(32).describe('Rank r of every random base'),
  alpha: z.number().default(640).describe('Numerator of the scaling s = alpha / rank'),
});
type Config = z.output<typeof config>;

/** Smaller and larger side of a module, and how many bases of rank r span the smaller. */
function sides({ inDim, outDim }: Pick<LinearDims, 'inDim' | 'outDim'>, { rank }: Config) {
  const small = Math.min(inDim, outDim);
  return { small, large: Math.max(inDim, outDim), bases: Math.ceil(small / rank) };
}

/** Â [r · bases, small] and B̂ [large, bases · r]. */
function factors(
  op: Ops,
  { A, B, lambda, gamma }: ParamValues<'A' | 'B' | 'lambda' | 'gamma'>,
  site: LinearDims,
  config: Config,
): readonly [Value, Value] {
  const { rank } = config;
  const { small, large, bases } = sides(site, config);
  const base = op.Slice(A, [0], [small], [2]);
  const scaled = op.Mul(op.Mul(base, op.Unsqueeze(lambda, [2])), gamma);
  const wide = op.Slice(B, [0, 0], [large, bases], [0, 1]);
  return [op.Reshape(scaled, [rank * bases, small]), op.Reshape(wide, [large, bases * rank])];
}

/**
 * Full-rank updates of random bases: `W' = W + s·Âᵀ B̂ᵀ` with Â the frozen bases A, scaled by λ [r, bases] and
 * γ [bases, small], and B̂ the frozen bases B, all modules sharing them; `s·B̂ Â` where outputs are the smaller side.
 */
export default defineMethod({
  id: 'randlora',
  summary: 'Scaled sums of random low-rank bases that all modules share',
  paper: {
    title: 'RandLoRA: Full-rank parameter-efficient fine-tuning of large models',
    arxiv: '2502.00987',
  },
  config,
  internal: ofFiles('RANDLORA'),
  shared: (modules, settings) => {
    const linear = modules.filter((site) => site.kind === 'linear').map((site) => sides(site, settings));
    const most = (of: 'small' | 'large') => Math.max(...linear.map((site) => site[of]));
    const [small, large] = [most('small'), most('large')];
    const { rank } = settings;
    return {
      A: { shape: [rank, 1, small], init: uniform(1), trainable: false, key: 'randlora_A' },
      B: {
        shape: [large, Math.ceil(small / rank), rank],
        init: uniform(1),
        trainable: false,
        key: 'randlora_B',
      },
    };
  },
  sites: {
    linear: onWeights<Config, 'lambda' | 'gamma', 'A' | 'B'>(
      (site, settings) => {
        const { small, bases } = sides(site, settings);
        return {
          lambda: { shape: [settings.rank, bases], init: zeros, key: 'randlora_lambda' },
          gamma: { shape: [bases, small], init: uniform(1), key: 'randlora_gamma' },
        };
      },
      (op, { w }, params, settings, site) => {
        const [narrow, wide] = factors(op, params, site, settings);
        const update =
          site.inDim <= site.outDim
            ? op.MatMul(op.Transpose(narrow, { perm: [1, 0] }), op.Transpose(wide, { perm: [1, 0] }))
            : op.MatMul(wide, narrow);
        return { w: op.Add(w, op.Mul(update, settings.alpha / settings.rank)) };
      },
    ),
  },
  peft: {
    types: ['RANDLORA'],
    tensors: { linear: { lambda: { key: 'randlora_lambda' }, gamma: { key: 'randlora_gamma' } } },
    shared: { A: { key: 'randlora_A' }, B: { key: 'randlora_B' } },
    settings: (fields) => ({
      rank: numberOf(fields, 'r', 32),
      alpha: numberOf(fields, 'randlora_alpha', 640),
    }),
    config: ({ rank, alpha }) => ({ r: rank, randlora_alpha: alpha, save_projection: true }),
  },
});
