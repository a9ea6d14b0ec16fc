import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { type Initializer, uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { countOf } from '../../src/types.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod, type ParamSpec, type ParamSpecs, type ParamValues } from './contract/method.js';
import { numberOf, RANK_AND_ALPHA } from './contract/peft-format.js';
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
});
type Config = z.output<typeof config>;

/** Shapes of the Kronecker factors, and which of them are products of rank r. */
interface Plan extends KroneckerShape {
  readonly leftFactored: boolean;
  readonly rightFactored: boolean;
}

function planOf({ inDim, outDim }: LinearDims, { rank, decomposeBoth, decomposeFactor }: Config): Plan {
  const shape = kroneckerShape(inDim, outDim, decomposeFactor);
  return {
    ...shape,
    leftFactored: decomposeBoth && rank < Math.max(...shape.left) / 2,
    rightFactored: rank < Math.max(...shape.right) / 2,
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
  return {
    ...factor('w1', plan.left, plan.leftFactored ? config.rank : undefined, () => zeros),
    ...factor('w2', plan.right, plan.rightFactored ? config.rank : undefined, kaiming),
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

/**
 * Low-rank Kronecker product: `W' = W + s·kron(w1, w2)`, w1 [in₁, out₁], w2 [in₂, out₂], in = in₁·in₂, out = out₁·out₂,
 * the sizes split near their square roots. w2 is a product `w2_b w2_a` of rank r where r is below half of its larger
 * side, w1 too with `decomposeBoth`. The branch contracts x [..., in₁, in₂] with w2 and then with w1, so the weight-sized
 * product never exists in training. As in PEFT, s = alpha / rank scales full factors too; w1 (or w1_a) starts at zero,
 * so the adapted model equals the base before training.
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
        const left = op.Mul(product(op, chain(params, 'w1')), scaling(config));
        return {
          y: op.Add(site.y, timesKronecker(op, site.x, left, chain(params, 'w2'), planOf(site, config))),
        };
      },
      fold: (op, { w }, params, config, site) => {
        const left = op.Mul(product(op, chain(params, 'w1')), scaling(config));
        const right = product(op, chain(params, 'w2'));
        return { w: op.Add(w, kronecker(op, left, right, planOf(site, config))) };
      },
    },
  },
  peft: {
    types: ['LOKR'],
    tensors: {
      linear: {
        w1: { key: 'lokr_w1', transposed: true },
        w1_a: { key: 'lokr_w1_a', transposed: true },
        w1_b: { key: 'lokr_w1_b', transposed: true },
        w2: { key: 'lokr_w2', transposed: true },
        w2_a: { key: 'lokr_w2_a', transposed: true },
        w2_b: { key: 'lokr_w2_b', transposed: true },
      },
    },
    patterns: RANK_AND_ALPHA,
    settings: (config) => ({
      rank: numberOf(config, 'r', 8),
      alpha: numberOf(config, 'alpha', 8),
      decomposeBoth: config.decompose_both === true,
      decomposeFactor: numberOf(config, 'decompose_factor', -1),
    }),
    config: ({ rank, alpha, decomposeBoth, decomposeFactor }) => ({
      r: rank,
      alpha,
      decompose_both: decomposeBoth,
      decompose_factor: decomposeFactor,
    }),
  },
});
