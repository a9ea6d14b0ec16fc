import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { normal } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { AttentionDims } from '../sites/views.js';
import { defineMethod, type Method, type ParamSpecs, type ParamValues } from './contract/method.js';
import { dense, denseParams, table } from './parts/dense.js';
import { type GateRole, gateOf, gateParams } from './parts/gate.js';

const config = z.strictObject({
  length: z.int().min(1).default(10).describe('Keys and values l in front of every attention'),
  projection: z
    .boolean()
    .default(false)
    .describe('Train them as the output of an MLP, which is evaluated once when the adapter is saved'),
  hidden: z.int().min(1).optional().describe('Width of the MLP; default: that of keys and values'),
  positions: z
    .enum(['shift', 'keep'])
    .default('shift')
    .describe(
      "Positions of the tokens: 'shift' counts the prefix, as PEFT's past_key_values do, where the export computes positions; 'keep' leaves them",
    ),
  std: z.number().min(0).default(1).describe('Standard deviation of the initial keys and values'),
  gating: z
    .boolean()
    .default(false)
    .describe('Multiply the prefix by a learned gate per example (UniPELT, arXiv 2110.07577)'),
});

type Config = z.output<typeof config>;
type Own = 'keys' | 'values' | 'up' | 'upBias' | GateRole;
type Shared = 'embedding' | 'down' | 'downBias';

/** Width of keys and values of all heads. */
function width({ keyValueHeads, headDim }: AttentionDims): number {
  return keyValueHeads * headDim;
}

/** Keys and values, [heads, length, head] each: tensors of their own, or columns of (tanh(E W₁ + b₁)) W₂ + b₂. */
function prefixOf(
  op: Ops,
  params: ParamValues<Own | Shared>,
  site: AttentionDims,
  { projection }: Config,
): { readonly keys: Value; readonly values: Value } {
  const { keys, values, embedding, down, downBias, up, upBias } = params;
  if (!projection) return { keys, values };
  const { keyValueHeads, headDim } = site;
  const inner = op.Tanh(dense(op, embedding, { weight: down, bias: downBias }));
  // One product per head: what is turned around is the weight. ONNX Runtime 1.30 crashes on half-precision keys that are
  // turned around twice, here and on their way into the scores.
  const perHead = op.Transpose(op.Reshape(up, [0, 2, keyValueHeads, headDim]), { perm: [1, 2, 0, 3] });
  const bias = op.Reshape(upBias, [2, keyValueHeads, 1, headDim]);
  const both = op.Add(op.MatMul(inner, perHead), bias);
  const [k, v] = op.Split(both, [1, 1], { axis: 0 }, 2);
  return { keys: op.Squeeze(k, [0]), values: op.Squeeze(v, [0]) };
}

/** Without its MLP. */
function plain({ projection: _projection, hidden: _hidden, ...rest }: Config): Partial<Config> {
  return rest;
}

const IMPOSSIBLE = {
  impossible:
    'keys and values in front of an attention are no weight of the model; serve them with emit --target adapted, or train a method that folds, such as lora',
};

const prefix: Method = defineMethod({
  id: 'prefix',
  summary: 'Trained keys and values in front of those of every attention',
  paper: { title: 'Prefix-Tuning: Optimizing Continuous Prompts for Generation', arxiv: '2101.00190' },
  config,
  shared(sites, { length, projection, hidden }) {
    const first = sites.find((site) => site.kind === 'attention');
    if (!projection || first === undefined) return {} as ParamSpecs<Shared>;
    const { dtype } = first;
    const dim = width(first);
    const layer = denseParams(dim, hidden ?? dim, 'prefix_encoder.down');
    return {
      embedding: { ...table(length, dim, 'prefix_encoder.embedding'), dtype },
      down: { ...layer.weight, dtype },
      downBias: { ...layer.bias, dtype },
    };
  },
  sites: {
    attention: {
      refuses: ({ hiddenDim }, { gating }) =>
        gating && hiddenDim === undefined
          ? 'the hidden states that its gate would read are not found'
          : undefined,
      params(site, { length, projection, hidden, std, gating }): ParamSpecs<Own> {
        const { keyValueHeads, headDim, hiddenDim } = site;
        const shape = [keyValueHeads, length, headDim];
        const layer = denseParams(hidden ?? width(site), 2 * width(site), 'prefix_up');
        const own = projection
          ? { up: layer.weight, upBias: layer.bias }
          : {
              keys: { shape, init: normal(std), key: 'prefix_keys' },
              values: { shape, init: normal(std), key: 'prefix_values' },
            };
        return { ...own, ...gateParams(hiddenDim ?? 0, gating, 'prefix_gate') } as ParamSpecs<Own>;
      },
      attach(op, site, params, config) {
        const { keys, values } = prefixOf(op, params, site, config);
        if (!config.gating) return { keys, values };
        const gate = op.Unsqueeze(gateOf(op, site.x as Value, params, site.path), [1]);
        return { keys: op.Mul(keys, gate), values: op.Mul(values, gate) };
      },
      fold: IMPOSSIBLE,
      byRow: { params: { keys: 'stacked', values: 'stacked', gate: 'stacked', gateBias: 'vector' } },
      collapse: {
        when: ({ projection }) => projection,
        get method() {
          return prefix;
        },
        config: plain,
        values: (op, _stored, params, config, site) => ({
          ...prefixOf(op, params, site, config),
          ...(config.gating ? { gate: params.gate, gateBias: params.gateBias } : {}),
        }),
      },
    },
    position: {
      alongside: 'attention',
      absent: ({ positions }) =>
        positions === 'keep'
          ? undefined
          : 'the export has no positions left to shift, so tokens keep theirs (positions: keep); models of PEFT, which count the prefix, compute something else',
      refuses: (_site, { positions }) => (positions === 'keep' ? 'positions are kept' : undefined),
      params: () => ({}),
      attach: (op, { positions }, _params, { length }) => ({ positions: op.Add(positions, length) }),
      fold: IMPOSSIBLE,
      byRow: { params: {} },
      collapse: {
        when: ({ projection }) => projection,
        get method() {
          return prefix;
        },
        config: plain,
        values: () => ({}),
      },
    },
  },
  startsAsBase: false,
  learningRate: 3e-2,
  otherwise:
    'Export with attn_implementation="eager" (fused attention is taken apart where its form is known), or use lora or parallel, which need none',
  defaultTargets: 'all',
  peft: {
    types: ['PREFIX_TUNING', 'CARTRIDGE'],
    tensors: {},
    // [tokens, layers · (keys, values) · heads · head]
    whole: {
      key: 'prompt_embeddings',
      shape: (parameters) => {
        const [heads = 0, tokens = 0, head = 0] = parameters[0]?.shape ?? [];
        return [tokens, parameters.length * heads * head];
      },
      at: (i, { role, shape, index }, dims) => {
        const [heads = 0, tokens = 0, head = 0] = shape;
        const [, width = 0] = dims;
        const h = Math.floor(i / (tokens * head));
        const token = Math.floor(i / head) % tokens;
        const row = 2 * index + (role === 'values' ? 1 : 0);
        return token * width + (row * heads + h) * head + (i % head);
      },
    },
    settings: (_config, module) => ({
      length: module?.shapes.get('prompt_embeddings')?.[0],
      positions: 'shift',
    }),
    config: ({ length, gating, positions }) => {
      if (gating === true) return 'PEFT has no gated prefixes';
      if (positions === 'keep')
        return 'tokens count the prefix in their positions in PEFT; train with positions: shift';
      return { num_virtual_tokens: length, prefix_projection: false };
    },
  },
});

/**
 * Prefix tuning. Every attention gets l more keys and values in front of its own: `K' = [P_k; K]`, `V' = [P_v; V]`, seen
 * by every query. Prefix keys are not rotated. With `projection` they are computed while training,
 * `[P_k, P_v] = tanh(E W₁ + b₁) W₂ + b₂`, E, W₁ and b₁ shared by all layers; what is saved are keys and values. Tokens
 * count the prefix in their positions, as through `past_key_values` in PEFT; `positions: keep` leaves them. With `gating`,
 * prefixes are multiplied by g(h) of UniPELT. Initial values N(0, 1), so that training does not start at the base.
 */
export default prefix;
