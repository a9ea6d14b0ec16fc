/** Formulas of additive methods against finite differences: every tensor they bring and every value they read. */
import { describe, expect, it } from 'vitest';
import { configure } from '../../passes/methods/contract/configurable.js';
import type { AnySiteRules, ParamSpecs } from '../../passes/methods/contract/method.js';
import { ACTIVATION_NAMES, activate } from '../../passes/methods/parts/activations.js';
import { resolveMethod } from '../../passes/methods/registry.js';
import type { SiteKind } from '../../passes/sites/site.js';
import type { Value } from '../../src/graph.js';
import { compare, draw, type GradientCase } from '../grad/harness.js';

const DIM = 8;
const path = 'layer.0';

/** Sizes and values of a site of each kind; [batch, time, features] where values have these axes. */
const SITES = {
  sublayer: {
    dims: { path, dtype: 'float64', role: 'feed-forward', dim: DIM, postNorm: false },
    values: { x: [2, 3, DIM], z: [2, 3, DIM], residual: [2, 3, DIM] },
  },
  attention: {
    dims: {
      path,
      dtype: 'float64',
      heads: 4,
      keyValueHeads: 2,
      headDim: 3,
      cross: false,
      hiddenDim: DIM,
    },
    values: { x: [2, 3, DIM] },
  },
  prompt: { dims: { path, dtype: 'float64', vocab: 11, dim: DIM }, values: {} },
  linear: {
    dims: { path, dtype: 'float64', inDim: DIM, outDim: 5, bias: true, role: undefined },
    values: { x: [2, 3, DIM], y: [2, 3, 5] },
  },
} as const;

/** Activations are those whose kernels have float64, fused or not. */
const CASES: readonly (readonly [string, keyof typeof SITES, Record<string, unknown>])[] = [
  ['houlsby', 'sublayer', { size: 4, activation: 'tanh', scaling: 'learned', gating: true }],
  ['pfeiffer', 'sublayer', { size: 4, activation: 'gelu_new', scaling: 2, gating: true }],
  ['parallel', 'sublayer', { size: 4, activation: 'sigmoid', scaling: 'learned' }],
  ['compacter', 'sublayer', { size: 4, divisor: 2, rank: 2, activation: 'gelu_new', gating: true }],
  ['compacter', 'sublayer', { size: 4, divisor: 2, shareRule: false, factorized: false, activation: 'tanh' }],
  ['prefix', 'attention', { length: 2, gating: true }],
  ['prefix', 'attention', { length: 2, projection: true, hidden: 5 }],
  ['p-tuning', 'prompt', { length: 3, encoder: 'lstm', hidden: 4, layers: 2 }],
  ['p-tuning', 'prompt', { length: 1, encoder: 'lstm', hidden: 4, layers: 1 }],
  ['lora', 'linear', { rank: 2, gating: true }],
];

function caseOf(id: string, kind: keyof typeof SITES, settings: Record<string, unknown>): GradientCase {
  const method = resolveMethod(id);
  const config = configure(method, settings);
  const rules = method.sites[kind as SiteKind] as AnySiteRules;
  const { dims, values } = SITES[kind];
  const specs: ParamSpecs = {
    ...rules.params(dims, config),
    ...method.shared?.([{ ...dims, kind } as never], config),
  };
  const [roles, names] = [Object.keys(specs), Object.keys(values)];
  return {
    name: `${id} ${JSON.stringify(settings)}`,
    inputs: [
      ...roles.map((role) => ({ shape: (specs[role] as ParamSpecs[string]).shape, draw: draw.unit })),
      ...Object.values(values).map((shape) => ({ shape })),
    ],
    build(b, inputs) {
      const params = Object.fromEntries(roles.map((role, i) => [role, inputs[i] as Value]));
      const own = Object.fromEntries(names.map((name, i) => [name, inputs[roles.length + i] as Value]));
      const view = { ...dims, ...own, normalize: (value: Value) => b.op.Tanh(value) };
      const context = { dropout: (x: Value) => x, stopGradient: (x: Value) => x };
      const replaced = Object.values(rules.attach(b.op, view, params, config, context));
      // What a formula leaves alone takes part too, so that every input has a gradient.
      return [...replaced, ...Object.values(own).map((value) => b.op.Mul(value, 0.1))];
    },
    // Parameters have known sizes.
    variants: ['static'],
  };
}

describe('gradients of additive methods', () => {
  it.each(CASES.map((row) => [`${row[0]} ${JSON.stringify(row[2])}`, row] as const))('%s', async (_, row) => {
    const results = await compare(caseOf(...row));
    expect(results.length).toBeGreaterThan(0);
    for (const result of results)
      expect(result.error, JSON.stringify(result)).toBeLessThanOrEqual(result.tolerance);
  });
});

describe('activations', () => {
  it.each(ACTIVATION_NAMES)('%s', async (name) => {
    const results = await compare({
      name,
      inputs: [{ shape: [3, 4], draw: draw.awayFromZero }],
      build: (b, [x]) => activate(b.op, name, x as Value),
      // Some kernels have no float64.
      dtype: 'float32',
    });
    for (const result of results)
      expect(result.error, JSON.stringify(result)).toBeLessThanOrEqual(result.tolerance);
  });
});
