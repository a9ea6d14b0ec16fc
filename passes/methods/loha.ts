import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod, type ParamSpecs, type ParamValues } from './contract/method.js';
import { numberOf, RANK_AND_ALPHA } from './contract/peft-format.js';
import { coreShape, effective, hasWindow, tucker, windowSize } from './parts/convolution.js';
import { rankAndAlpha, scaling } from './parts/low-rank.js';

const config = z.strictObject({
  ...rankAndAlpha,
  effective,
});
type Config = z.output<typeof config>;

type Factors = ParamValues<'w1_a' | 'w1_b' | 'w2_a' | 'w2_b'> & { readonly t1?: Value; readonly t2?: Value };

/** s·(w1_b w1_a) ⊙ (w2_b w2_a), [in, out]; with cores s·tucker(t1) ⊙ tucker(t2). */
function update(op: Ops, factors: Factors, config: Config, site: LinearDims): Value {
  const { w1_a, w1_b, w2_a, w2_b, t1, t2 } = factors;
  const s = scaling(config);
  if (t1 === undefined || t2 === undefined)
    return op.Mul(op.MatMul(op.Mul(w1_b, s), w1_a), op.MatMul(w2_b, w2_a));
  const size = windowSize(site);
  const sizes = { rank: config.rank, size, channels: site.inDim / size, out: site.outDim };
  return op.Mul(
    tucker(op, { core: op.Mul(t1, s), a: w1_a, b: w1_b }, sizes),
    tucker(op, { core: t2, a: w2_a, b: w2_b }, sizes),
  );
}

/** Factors of the matrix. Bounds are 1/√(last axis of PEFT's tensor). */
function matrixParams({ inDim, outDim }: LinearDims, { rank }: Config): ParamSpecs {
  return {
    w1_a: { shape: [rank, outDim], init: uniform(1 / Math.sqrt(rank)), key: 'hada_w1_a' },
    w1_b: { shape: [inDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'hada_w1_b' },
    w2_a: { shape: [rank, outDim], init: uniform(1 / Math.sqrt(rank)), key: 'hada_w2_a' },
    w2_b: { shape: [inDim, rank], init: zeros, key: 'hada_w2_b' },
  };
}

/** Factors of output and channels, and cores of the window. */
function windowParams(site: LinearDims, { rank }: Config): ParamSpecs {
  const { outDim, window } = site;
  const channels = site.inDim / windowSize(site);
  const core = coreShape(rank, window);
  const start = uniform(1 / Math.sqrt(rank * windowSize(site)));
  return {
    w1_a: { shape: [outDim, rank], init: uniform(1 / Math.sqrt(outDim)), key: 'hada_w1_a' },
    w1_b: { shape: [channels, rank], init: uniform(1 / Math.sqrt(channels)), key: 'hada_w1_b' },
    w2_a: { shape: [outDim, rank], init: uniform(1 / Math.sqrt(outDim)), key: 'hada_w2_a' },
    w2_b: { shape: [channels, rank], init: zeros, key: 'hada_w2_b' },
    t1: { shape: core, init: start, key: 'hada_t1' },
    t2: { shape: core, init: start, key: 'hada_t2' },
  };
}

/**
 * Low-rank Hadamard product: `W' = W + s·(w1_b w1_a) ⊙ (w2_b w2_a)` with factors [in, r] and [r, out], the transposes of
 * PEFT's; at a convolution with `effective`, Tucker products over output, channels and window. The update has rank r² at twice the parameters of LoRA. The product is a low-rank update itself, whose factors
 * are the row-wise and column-wise Khatri–Rao products [in, r²] and [r², out]; where these are smaller than W the branch
 * `y' = y + s·x (w1_b ∗ w2_b) (w1_a ∗ w2_a)` is trained, otherwise the weight. w2_b starts at zero and the rest
 * Kaiming-uniform as in PEFT, so the adapted model equals the base before training.
 */
export default defineMethod({
  id: 'loha',
  summary: 'Elementwise product of two low-rank updates',
  paper: { title: 'FedPara: Low-Rank Hadamard Product', arxiv: '2108.06098' },
  config,
  sites: {
    linear: {
      params: (site, config) =>
        (config.effective && hasWindow(site)
          ? windowParams(site, config)
          : matrixParams(site, config)) as ParamSpecs<keyof Factors>,
      attach: (op, site, factors: Factors, config) => {
        const { inDim, outDim } = site;
        const { rank } = config;
        const s = scaling(config);
        if (factors.t1 !== undefined || rank * rank * (inDim + outDim) >= inDim * outDim)
          return { w: op.Add(site.w, update(op, factors, config, site)) };
        const { w1_a, w1_b, w2_a, w2_b } = factors;
        const into = op.Mul(op.Unsqueeze(op.Mul(w1_b, s), [2]), op.Unsqueeze(w2_b, [1]));
        const out = op.Mul(op.Unsqueeze(w1_a, [1]), op.Unsqueeze(w2_a, [0]));
        const inner = op.MatMul(site.x, op.Reshape(into, [inDim, rank * rank]));
        return { y: op.Add(site.y, op.MatMul(inner, op.Reshape(out, [rank * rank, outDim]))) };
      },
      fold: (op, { w }, factors: Factors, config, site) => ({
        w: op.Add(w, update(op, factors, config, site)),
      }),
    },
  },
  peft: {
    types: ['LOHA'],
    tensors: {
      linear: {
        w1_a: { key: 'hada_w1_a', transposed: true },
        w1_b: { key: 'hada_w1_b', transposed: true },
        w2_a: { key: 'hada_w2_a', transposed: true },
        w2_b: { key: 'hada_w2_b', transposed: true },
        t1: { key: 'hada_t1' },
        t2: { key: 'hada_t2' },
      },
    },
    patterns: RANK_AND_ALPHA,
    settings: (config) => ({
      rank: numberOf(config, 'r', 8),
      alpha: numberOf(config, 'alpha', 8),
      effective: config.use_effective_conv2d === true,
    }),
    config: ({ rank, alpha, effective }) => ({ r: rank, alpha, use_effective_conv2d: effective === true }),
  },
});
