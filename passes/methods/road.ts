import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { ones, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod, type ParamValues } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  variant: z
    .enum(['road_1', 'road_2', 'road_4'])
    .default('road_1')
    .describe('Parameters per pair: one, two or four'),
  group: z.int().min(2).default(64).describe('Size of the groups in whose halves pairs stand'),
});
type Config = z.output<typeof config>;

/** Parameters per output. */
const SHARE = { road_1: 0.5, road_2: 1, road_4: 2 } as const;

/** What an output is multiplied by, and what its partner in the pair is: α cos θ and α sin θ, [out] each. */
function factors(op: Ops, { theta, alpha }: ParamValues<'theta' | 'alpha'>, { variant, group }: Config) {
  const cos = op.Mul(alpha, op.Cos(theta));
  const sin = op.Mul(alpha, op.Sin(theta));
  if (variant === 'road_2') return [cos, sin] as const;
  if (variant === 'road_1') {
    const twice = (value: Value) =>
      op.Reshape(op.Tile(op.Reshape(value, [-1, 1, group / 2]), [1, 2, 1]), [-1]);
    return [twice(cos), twice(sin)] as const;
  }
  const part = (value: Value, index: number) =>
    op.Reshape(op.Slice(op.Reshape(value, [-1, 2, group]), [index], [index + 1], [1]), [-1]);
  return [part(cos, 0), part(sin, 1)] as const;
}

/** value ⊙ cos + rotate(value) ⊙ sin over the last axis, rotate (x₁, x₂) → (−x₂, x₁) by halves of groups. */
function turned(
  op: Ops,
  value: Value,
  [cos, sin]: readonly [Value, Value],
  group: number,
  shape: readonly number[],
) {
  const halves = op.Reshape(value, [-1, 2, group / 2]);
  const first = op.Slice(halves, [0], [1], [1]);
  const second = op.Slice(halves, [1], [2], [1]);
  const swapped = op.Reshape(op.Concat([op.Neg(second), first], { axis: 1 }), shape);
  return op.Add(op.Mul(value, cos), op.Mul(swapped, sin));
}

/** Rotary adaptation: pairs of outputs are rotated and scaled, `y' = R (x W + b)`. */
export default defineMethod({
  id: 'road',
  summary: 'Rotation of pairs of outputs',
  paper: {
    title: '3-in-1: 2D Rotary Adaptation for Efficient Finetuning, Efficient Batching and Composability',
    arxiv: '2409.00119',
  },
  config,
  internal: ofFiles('ROAD'),
  sites: {
    linear: onWeights(
      ({ outDim }, { variant }: Config) => ({
        theta: { shape: [outDim * SHARE[variant]], init: zeros, key: 'road_theta' },
        alpha: { shape: [outDim * SHARE[variant]], init: ones, key: 'road_alpha' },
      }),
      (op, { w, b }, params, config, { inDim, outDim }) => {
        const pair = factors(op, params, config);
        return {
          w: turned(op, w, pair, config.group, [inDim, outDim]),
          ...(b === undefined ? {} : { b: turned(op, b, pair, config.group, [outDim]) }),
        };
      },
    ),
  },
  peft: {
    types: ['ROAD'],
    tensors: { linear: { theta: { key: 'road_theta' }, alpha: { key: 'road_alpha' } } },
    settings: (fields) => ({
      variant: fields.variant ?? 'road_1',
      group: numberOf(fields, 'group_size', 64),
    }),
    config: ({ variant, group }) => ({ variant, group_size: group }),
  },
});
