import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { type Initializer, uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { countOf } from '../../src/types.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod, type ParamSpec, type ParamSpecs, type ParamValues } from './contract/method.js';
import { numberOf, RANK_AND_ALPHA } from './contract/peft-format.js';
import { coreShape, effective, hasWindow, overWindow, tucker, windowSize } from './parts/convolution.js';
import { type KroneckerShape, kronecker, kroneckerShape, timesKronecker } from './parts/kronecker.js';
import { rankAndAlpha, scaling } from './parts/low-rank.js';

const config = z.strictObject({
  ...rankAndAlpha,
  decomposeBoth: z
    .boolean()
    .default(false)
    .describe('Factor the left matrix too, where the rank is small enough'),
  decomposeFactor: z
    .int()
    .default(-1)
    .describe('First factor of the sizes of the weight; -1 splits them near their square roots')
    .refine((factor) => factor === -1 || factor > 0, 'must be -1 or positive'),
  effective,
});
type Config = z.output<typeof config>;

/** Shapes of the Kronecker factors, and which of them are products of rank r. */
interface Plan extends KroneckerShape {
  readonly leftFactored: boolean;
  readonly rightFactored: boolean;
  /** Whether the right one is a Tucker product over output, channels and window. */
  readonly cored: boolean;
}

/** Of a convolution the channels are split, and the right matrix has the window. */
function planOf(site: LinearDims, { rank, decomposeBoth, decomposeFactor, effective }: Config): Plan {
  const { inDim, outDim } = site;
  const size = windowSize(site);
  const { left, right } = kroneckerShape(inDim / size, outDim, decomposeFactor);
  const rightFactored = rank < Math.max(...right) / 2;
  return {
    left,
    right: [right[0] * size, right[1]],
    leftFactored: decomposeBoth && rank < Math.max(...left) / 2,
    rightFactored,
    cored: effective && rightFactored && hasWindow(site),
  };
}

/** A Kronecker factor [rows, columns]: itself, or `b` [rows, r] times `a` [r, columns], by PEFT's names. */
function factor(
  name: string,
  [rows, columns]: readonly [number, number],
  rank: number | undefined,
  start: (fan: number) => Initializer,
): Record<string, ParamSpec> {
  if (rank === undefined)
    return { [name]: { shape: [rows, columns], init: start(rows), key: `lokr_${name}` } };
  return {
    [`${name}_a`]: { shape: [rank, columns], init: start(rank), key: `lokr_${name}_a` },
    [`${name}_b`]: { shape: [rows, rank], init: uniform(1 / Math.sqrt(rows)), key: `lokr_${name}_b` },
  };
}

const kaiming = (fan: number): Initializer => uniform(1 / Math.sqrt(fan));

function paramsOf(site: LinearDims, config: Config): ParamSpecs {
  const plan = planOf(site, config);
  const { rank } = config;
  const left = factor('w1', plan.left, plan.leftFactored ? rank : undefined, () => zeros);
  if (!plan.cored)
    return { ...left, ...factor('w2', plan.right, plan.rightFactored ? rank : undefined, kaiming) };
  const [rows, columns] = plan.right;
  const channels = rows / windowSize(site);
  return {
    ...left,
    w2_a: { shape: [columns, rank], init: kaiming(columns), key: 'lokr_w2_a' },
    w2_b: { shape: [channels, rank], init: kaiming(channels), key: 'lokr_w2_b' },
    t2: { shape: coreShape(rank, site.window), init: kaiming(rank * windowSize(site)), key: 'lokr_t2' },
  };
}

function elementsIn(params: ParamSpecs): number {
  return Object.values(params).reduce((sum, { shape }) => sum + countOf(shape), 0);
}

/** The matrices whose product is a Kronecker factor. */
function chain(params: ParamValues, name: string): Value[] {
  return [params[name], params[`${name}_b`], params[`${name}_a`]].filter((value) => value !== undefined);
}

function product(op: Ops, values: readonly Value[]): Value {
  return values.reduce((left, right) => op.MatMul(left, right));
}

/** The right matrix as it is multiplied, [channels × window, out]. */
function rightOf(op: Ops, params: ParamValues, plan: Plan, { rank }: Config, site: LinearDims): Value {
  const { t2: core, w2_a: a, w2_b: b } = params;
  if (core === undefined || a === undefined || b === undefined) return product(op, chain(params, 'w2'));
  const size = windowSize(site);
  return tucker(op, { core, a, b }, { rank, size, channels: plan.right[0] / size, out: plan.right[1] });
}

/**
 * The update of a Conv1d whose w2 is whole, as PEFT computes it. There kron meets w1 [out₁, in₁] and w2 [out₂, in₂, K],
 * and aligns their last axes: `K[o₂, o₁·in₂ + i₂, i₁·K + k] = w1[o₁, i₁]·w2[o₂, i₂, k]`, read row by row as [out, in·K].
 */
function alignedAtTheEnd(op: Ops, w1: Value, w2: Value, plan: Plan, site: LinearDims): Value {
  const { inDim, outDim } = site;
  const size = windowSize(site);
  const [in1, out1] = plan.left;
  const [in2, out2] = [plan.right[0] / size, plan.right[1]];
  const left = op.Reshape(op.Transpose(w1, { perm: [1, 0] }), [1, out1, 1, in1, 1]);
  const right = op.Reshape(op.Transpose(w2, { perm: [1, 0] }), [out2, 1, in2, 1, size]);
  return op.Transpose(op.Reshape(op.Mul(left, right), [outDim, inDim]), { perm: [1, 0] });
}

/** s·kron(w1, w2), [in, out]. */
function update(op: Ops, params: ParamValues, config: Config, site: LinearDims): Value {
  const plan = planOf(site, config);
  const left = op.Mul(product(op, chain(params, 'w1')), scaling(config));
  const right = rightOf(op, params, plan, config, site);
  return isAlignedAtTheEnd(plan, site)
    ? alignedAtTheEnd(op, left, right, plan, site)
    : kronecker(op, left, right, plan);
}

function isAlignedAtTheEnd({ rightFactored }: Plan, { window }: LinearDims): boolean {
  return window?.length === 1 && !rightFactored;
}

/**
 * Low-rank Kronecker product: `W' = W + s·kron(w1, w2)`, w1 [in₁, out₁], w2 [in₂, out₂], in = in₁·in₂, out = out₁·out₂,
 * the sizes split near their square roots. w2 is a product `w2_b w2_a` of rank r where r is below half of its larger
 * side, w1 too with `decomposeBoth`. The branch contracts x [..., in₁, in₂] with w2 and then with w1, so the weight-sized
 * product never exists in training. As in PEFT, s = alpha / rank scales full factors too; w1 (or w1_a) starts at zero,
 * so the adapted model equals the base before training. Of a convolution the channels are split, and w2 has the window.
 */
export default defineMethod({
  id: 'lokr',
  summary: 'Kronecker product of a small matrix and a low-rank one',
  paper: {
    title: 'Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation',
    arxiv: '2309.14859',
  },
  config,
  sites: {
    linear: {
      refuses: (site, config) => {
        const { inDim, outDim } = site;
        if (elementsIn(paramsOf(site, config)) < inDim * outDim) return undefined;
        return `${inDim} × ${outDim} has no Kronecker factors that are smaller than the weight; lower the rank, exclude it, or adapt it with lora`;
      },
      params: paramsOf,
      attach: (op, site, params, config) => {
        const plan = planOf(site, config);
        if (plan.cored || isAlignedAtTheEnd(plan, site))
          return { w: op.Add(site.w, update(op, params, config, site)) };
        const left = op.Mul(product(op, chain(params, 'w1')), scaling(config));
        return { y: op.Add(site.y, timesKronecker(op, site.x, left, chain(params, 'w2'), plan)) };
      },
      fold: (op, { w }, params, config, site) => ({ w: op.Add(w, update(op, params, config, site)) }),
    },
  },
  peft: {
    types: ['LOKR'],
    tensors: {
      linear: {
        w1: { key: 'lokr_w1', transposed: true },
        w1_a: { key: 'lokr_w1_a', transposed: true },
        w1_b: { key: 'lokr_w1_b', transposed: true },
        w2: { key: 'lokr_w2', transposed: true, convolved: overWindow },
        w2_a: { key: 'lokr_w2_a', transposed: true },
        w2_b: { key: 'lokr_w2_b', transposed: true },
        t2: { key: 'lokr_t2' },
      },
    },
    patterns: RANK_AND_ALPHA,
    settings: (config) => ({
      rank: numberOf(config, 'r', 8),
      alpha: numberOf(config, 'alpha', 8),
      decomposeBoth: config.decompose_both === true,
      decomposeFactor: numberOf(config, 'decompose_factor', -1),
      effective: config.use_effective_conv2d === true,
    }),
    config: ({ rank, alpha, decomposeBoth, decomposeFactor, effective }) => ({
      r: rank,
      alpha,
      decompose_both: decomposeBoth,
      decompose_factor: decomposeFactor,
      use_effective_conv2d: effective === true,
    }),
  },
});
