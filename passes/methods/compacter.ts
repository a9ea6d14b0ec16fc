import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { type Initializer, normal, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod, type ParamSpec, type ParamSpecs, type ParamValues } from './contract/method.js';
import houlsby from './houlsby.js';
import { bottleneckShape, bottleneckSize, NO_BLOCKS, NON_LINEAR, project } from './parts/bottleneck.js';
import { type GateRole, gateOf, gateParams } from './parts/gate.js';
import { xavierUniform } from './parts/initializers.js';

const config = z.strictObject({
  ...bottleneckShape({ reduction: 32, activation: 'gelu_new' }),
  divisor: z.int().min(1).default(4).describe('Number n of Kronecker products in a sum; divides both widths'),
  rank: z.int().min(1).default(1).describe('Inner dimension of the factors of B_i'),
  factorized: z.boolean().default(true).describe('B_i as a product of two factors; false trains B_i whole'),
  shareRule: z.boolean().default(true).describe('One rule A for all projections; false gives each its own'),
  ruleStd: z.number().positive().default(0.01).describe('Standard deviation of the initial rule'),
  init: z
    .enum(['zero', 'glorot'])
    .default('zero')
    .describe(
      'Initial up projection: zero (exactly the base), or glorot as the paper has it (close to the base)',
    ),
  dense: z
    .boolean()
    .default(false)
    .describe('Save a plain adapter with the products worked out: larger, and nothing is left to compute'),
});

type Config = z.output<typeof config>;

const SIDES = ['down', 'up'] as const;
type Side = (typeof SIDES)[number];
type Role = `${Side}${'Left' | 'Right' | 'Full' | 'Rule' | 'Bias'}` | GateRole;

/** torch's gain of ReLU, with which Compacter draws the factors. */
const GAIN = Math.SQRT2;

/** Width of the bottleneck: as given, or a multiple of n. */
function sizeOf(dim: number, config: Config): number {
  const { size, divisor: n } = config;
  return size ?? Math.ceil(bottleneckSize(dim, config) / n) * n;
}

function sizes(dim: number, config: Config): Readonly<Record<Side, readonly [number, number]>> {
  const size = sizeOf(dim, config);
  return { down: [dim, size], up: [size, dim] };
}

function rule({ divisor: n, ruleStd }: Config, key: string): ParamSpec {
  return { shape: [n, n, n], init: normal(ruleStd), key };
}

function projectionParams(side: Side, [rows, columns]: readonly [number, number], config: Config) {
  const { divisor: n, rank, factorized, shareRule, init } = config;
  const key = `adapter_${side}`;
  const [height, width] = [rows / n, columns / n];
  const drawn = (fanIn: number, fanOut: number): Initializer =>
    side === 'up' && init === 'zero' ? zeros : xavierUniform(fanIn, fanOut, GAIN);
  const matrices: Record<string, ParamSpec> = factorized
    ? {
        [`${side}Left`]: {
          shape: [n, height, rank],
          init: xavierUniform(height, rank, GAIN),
          key: `${key}.phm_left`,
        },
        [`${side}Right`]: { shape: [n, rank, width], init: drawn(rank, width), key: `${key}.phm_right` },
      }
    : { [`${side}Full`]: { shape: [n, height, width], init: drawn(height, width), key: `${key}.phm` } };
  return {
    ...matrices,
    ...(shareRule ? {} : { [`${side}Rule`]: rule(config, `${key}.phm_rule`) }),
    [`${side}Bias`]: { shape: [columns], init: zeros, key: `${key}.bias` },
  };
}

/** H = Σ_i A_i ⊗ B_i as [in, out]: H[a·p + r, b·q + c] = Σ_i A_i[a, b]·B_i[r, c]. */
function matrix(
  op: Ops,
  side: Side,
  params: ParamValues<Role | 'rule'>,
  [rows, columns]: readonly [number, number],
  { divisor: n, factorized, shareRule }: Config,
): Value {
  const factors = factorized
    ? op.MatMul(params[`${side}Left`], params[`${side}Right`])
    : params[`${side}Full`];
  const [height, width] = [rows / n, columns / n];
  const own = shareRule ? params.rule : params[`${side}Rule`];
  const products = op.MatMul(
    op.Transpose(op.Reshape(own, [n, n * n]), { perm: [1, 0] }),
    op.Reshape(factors, [n, height * width]),
  );
  const ordered = op.Transpose(op.Reshape(products, [n, n, height, width]), { perm: [0, 2, 1, 3] });
  return op.Reshape(ordered, [rows, columns]);
}

function projections(op: Ops, dim: number, params: ParamValues<Role | 'rule'>, config: Config) {
  const { down, up } = sizes(dim, config);
  return {
    down: matrix(op, 'down', params, down, config),
    downBias: params.downBias,
    up: matrix(op, 'up', params, up, config),
    upBias: params.upBias,
  };
}

/**
 * Compacter. Houlsby's adapters with parametrised hypercomplex projections: `z' = z + f(z H₁ + b₁) H₂ + b₂`, each
 * `H = Σ_i A_i ⊗ (s_i t_i)` over n terms, with the rule A [n, n, n] shared by all and s_i t_i of rank 1. Target
 * `role:feed-forward` is Compacter++; `shareRule: false` with `factorized: false` is the PHM adapter (the paper: n = 12).
 * The right factors of H₂ start at zero, so that the adapted model equals the base before training; `init: glorot` starts
 * as the paper does.
 */
export default defineMethod({
  id: 'compacter',
  summary: 'Adapters whose projections are sums of Kronecker products with a shared rule',
  paper: { title: 'Compacter: Efficient Low-Rank Hypercomplex Adapter Layers', arxiv: '2106.04647' },
  config,
  shared: (_sites, config) =>
    (config.shareRule ? { rule: rule(config, 'phm_rule') } : {}) as ParamSpecs<'rule'>,
  sites: {
    sublayer: {
      refuses({ dim }, config) {
        const size = sizeOf(dim, config);
        const { divisor: n } = config;
        return dim % n === 0 && size % n === 0
          ? undefined
          : `${n} terms have to divide the width ${dim} and the bottleneck ${size}; choose another divisor or size`;
      },
      params({ dim }, config): ParamSpecs<Role> {
        const own = SIDES.map((side) => projectionParams(side, sizes(dim, config)[side], config));
        return Object.assign({}, ...own, gateParams(dim, config.gating, 'adapter_gate')) as ParamSpecs<Role>;
      },
      attach(op, { z, dim, path }, params, config, context) {
        const delta = project(op, z, projections(op, dim, params, config), config, context);
        return { z: op.Add(z, config.gating ? op.Mul(delta, gateOf(op, z, params, path)) : delta) };
      },
      fold: NON_LINEAR,
      collapse: {
        when: ({ dense }) => dense,
        method: houlsby,
        config: (config, { dim }) => {
          const { activation, dropout, gating } = config;
          return { size: sizeOf(dim, config), activation, dropout, gating };
        },
        values: (op, _stored, params, config, { dim }) => ({
          ...projections(op, dim, params, config),
          ...(config.gating ? { gate: params.gate, gateBias: params.gateBias } : {}),
        }),
      },
    },
  },
  defaultTargets: 'all',
  learningRate: 3e-3,
  otherwise: NO_BLOCKS,
});
