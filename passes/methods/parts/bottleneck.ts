/** The bottleneck of adapters, B(h) = g(h)·s·(f(h Wd + bd) Wu + bu), with its settings and initial values. */
import { z } from 'zod';
import type { Value } from '../../../src/graph.js';
import { type Initializer, normal, ones, zeros } from '../../../src/initializer.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { SiteViews } from '../../sites/views.js';
import type { AttachContext, Impossible, ParamSpecs, ParamValues, SiteRules } from '../contract/method.js';
import { ACTIVATION_NAMES, type ActivationName, activate } from './activations.js';
import { type GateRole, gateOf, gateParams } from './gate.js';
import { linearDefault, truncatedNormal } from './initializers.js';

type InitName = 'lora' | 'houlsby' | 'bert';

/** Initial weights of both projections by the number of their inputs; biases start at zero. */
const INITS: Readonly<Record<InitName, Readonly<Record<'down' | 'up', (fanIn: number) => Initializer>>>> = {
  /** Kaiming-uniform Wd and zero Wu (He et al.): nothing changes before training. */
  lora: { down: linearDefault, up: () => zeros },
  /** N(0, 1e-3) cut at two deviations (Houlsby et al.): close to the base. */
  houlsby: { down: () => truncatedNormal(1e-3), up: () => truncatedNormal(1e-3) },
  /** N(0, 0.02) as in BERT (AdapterHub's default): near the base. */
  bert: { down: () => normal(0.02), up: () => normal(0.02) },
};

export interface SizeSettings {
  readonly size?: number | undefined;
  readonly reduction: number;
}

export interface BottleneckSettings extends SizeSettings {
  readonly activation: ActivationName;
  readonly init: InitName;
  readonly scaling: number | 'learned';
  readonly dropout: number;
  readonly gating: boolean;
}

/** Size of the bottleneck and what every adapter with one lets choose. */
export function bottleneckShape(defaults: {
  readonly reduction: number;
  readonly activation: ActivationName;
}) {
  return {
    size: z
      .int()
      .min(1)
      .optional()
      .describe('Width m of the bottleneck; default: the model width / reduction'),
    reduction: z
      .number()
      .min(1)
      .default(defaults.reduction)
      .describe('Factor by which the bottleneck is narrower than the model, where no size is given'),
    activation: z
      .enum(ACTIVATION_NAMES)
      .default(defaults.activation)
      .describe('Function f in the bottleneck'),
    dropout: z.number().min(0).lt(1).default(0).describe('Dropout in the bottleneck while training'),
    gating: z
      .boolean()
      .default(false)
      .describe('Multiply the adapter by a learned gate per example (UniPELT, arXiv 2110.07577)'),
  };
}

/** All settings of a bottleneck adapter. */
export function bottleneckSettings(defaults: {
  readonly reduction: number;
  readonly activation: ActivationName;
  readonly scaling: number;
}) {
  return {
    ...bottleneckShape(defaults),
    init: z
      .enum(Object.keys(INITS) as [InitName, ...InitName[]])
      .default('lora')
      .describe(
        'Initial weights: lora (zero Wu, exactly the base), houlsby (truncated N(0, 1e-3)), bert (N(0, 0.02))',
      ),
    scaling: z
      .union([z.number(), z.literal('learned')])
      .default(defaults.scaling)
      .describe("Factor s on the adapter's output; 'learned' trains one per module, from 1"),
  };
}

/** Width of the bottleneck at a module of width `dim`. */
export function bottleneckSize(dim: number, { size, reduction }: SizeSettings): number {
  return size ?? Math.max(1, Math.floor(dim / reduction));
}

type Role = 'down' | 'downBias' | 'up' | 'upBias' | 'scale' | GateRole;

function bottleneckParams(dim: number, config: BottleneckSettings): ParamSpecs<Role> {
  const size = bottleneckSize(dim, config);
  const init = INITS[config.init];
  const scale =
    config.scaling === 'learned' ? { scale: { shape: [1], init: ones, key: 'adapter_scale' } } : {};
  return {
    down: { shape: [dim, size], init: init.down(dim), key: 'adapter_down' },
    downBias: { shape: [size], init: zeros, key: 'adapter_down.bias' },
    up: { shape: [size, dim], init: init.up(size), neutral: zeros, key: 'adapter_up' },
    upBias: { shape: [dim], init: zeros, key: 'adapter_up.bias' },
    ...scale,
    ...gateParams(dim, config.gating, 'adapter_gate'),
  } as ParamSpecs<Role>;
}

/** Weights of the two projections: [in, out] matrices and vectors. */
export type Projections = ParamValues<'down' | 'downBias' | 'up' | 'upBias'>;

/** f(h Wd + bd) Wu + bu */
export function project(
  op: Ops,
  h: Value,
  { down, downBias, up, upBias }: Projections,
  { activation, dropout }: Pick<BottleneckSettings, 'activation' | 'dropout'>,
  context: AttachContext,
): Value {
  const inner = activate(op, activation, op.Add(op.MatMul(h, down), downBias));
  return op.Add(op.MatMul(context.dropout(inner, dropout), up), upBias);
}

/** B(h) */
function bottleneck(
  op: Ops,
  h: Value,
  params: ParamValues<Role>,
  config: BottleneckSettings,
  context: AttachContext,
  path: string,
): Value {
  const plain = project(op, h, params, config, context);
  const factor = config.scaling === 'learned' ? params.scale : config.scaling;
  const scaled = factor === 1 ? plain : op.Mul(plain, factor);
  return config.gating ? op.Mul(scaled, gateOf(op, h, params, path)) : scaled;
}

/** Why no adapter with an activation inside folds. */
export const NON_LINEAR: Impossible = {
  impossible:
    'an activation stands between its two projections, so that no weight computes the same; serve it with emit --target adapted, or train lora, which folds',
};

/** What to do about models without residual blocks. */
export const NO_BLOCKS =
  'Adapters stand at residual blocks, sum = residual + block; in a model without them use lora, which needs none';

/** Rules of an adapter that adds B(h) to what a block adds to the residual stream. `read` says what h is. */
export function bottleneckRules(
  read: (op: Ops, site: SiteViews['sublayer']) => Value,
): SiteRules<'sublayer', BottleneckSettings, Role> {
  return {
    params: ({ dim }, config) => bottleneckParams(dim, config),
    attach: (op, site, params, config, context) => ({
      z: op.Add(site.z, bottleneck(op, read(op, site), params, config, context, site.path)),
    }),
    fold: NON_LINEAR,
    byRow: {
      params: {
        down: 'stacked',
        downBias: 'vector',
        up: 'stacked',
        upBias: 'vector',
        scale: 'vector',
        gate: 'stacked',
        gateBias: 'vector',
      },
    },
  };
}
