/** Methods that add to what the base computes: adapters at blocks, prefixes and prompts, and their compositions. */
import type { InsertEntry } from '../../../passes/insert/entry.js';
import {
  type Layout,
  type MethodMapping,
  type Recorded,
  type Reference,
  same,
  transposed,
} from '../reference-support.js';

/** Blocks of the layers by our paths. */
const BLOCKS = {
  bert: {
    layer: 'bert.encoder.layer',
    attention: 'attention',
    'feed-forward': 'ffn',
    heads: 'attention.self',
  },
  gpt2: { layer: 'transformer.h', attention: 'attn', 'feed-forward': 'mlp', heads: 'attn' },
  llama: { layer: 'model.layers', attention: 'self_attn', 'feed-forward': 'mlp', heads: 'self_attn' },
} as const;

const LAYERS = 2;
const HEADS = { bert: 4, gpt2: 4, llama: 2 } as const;

type Known = keyof typeof BLOCKS;

/** What one recorded tensor is for us: none or several tensors by our key. */
type Rule = (recorded: Recorded, reference: Reference) => (readonly [string, readonly number[]])[];

function translate(rules: Readonly<Record<string, Rule>>): MethodMapping['translate'] {
  return (all, _of, reference) =>
    new Map(
      all.flatMap((recorded) => {
        const rule = rules[recorded.param.role];
        if (rule === undefined)
          throw new Error(`${recorded.param.key}: no mapping of ${recorded.param.role}`);
        return rule(recorded, reference);
      }),
    );
}

/** A tensor at a residual block. */
const atBlock =
  (key: string, layout: Layout): Rule =>
  ({ param: { layer, block, shape }, data }, { architecture }) => {
    const places = BLOCKS[architecture as Known];
    return [[`${places.layer}.${layer}.${places[block ?? 'feed-forward']}.${key}`, layout(data, shape)]];
  };

/** A tensor at the module it is recorded at. */
const atModule =
  (key: string, layout: Layout): Rule =>
  ({ param: { path, shape }, data }) => [[`${path}.${key}`, layout(data, shape)]];

const adapter: Readonly<Record<string, Rule>> = {
  'adapter_down.weight': atBlock('adapter_down', transposed),
  'adapter_down.bias': atBlock('adapter_down.bias', same),
  'adapter_up.weight': atBlock('adapter_up', transposed),
  'adapter_up.bias': atBlock('adapter_up.bias', same),
  adapter_scale: atBlock('adapter_scale', same),
  'adapter_gate.weight': atBlock('adapter_gate', transposed),
  'adapter_gate.bias': atBlock('adapter_gate.bias', same),
  // Trained with the adapters.
  weight: atModule('ln_tuning_layers.weight', same),
  bias: atModule('ln_tuning_layers.bias', same),
};

const phm: Readonly<Record<string, Rule>> = {
  phm_rule: ({ data }) => [['phm_rule', data]],
  ...Object.fromEntries(
    ['adapter_down', 'adapter_up'].flatMap((side) =>
      ['phm_left', 'phm_right', 'bias'].map((part) => [`${side}.${part}`, atBlock(`${side}.${part}`, same)]),
    ),
  ),
};

function attentionAt(architecture: string, layer: number): string {
  const places = BLOCKS[architecture as Known];
  return `${places.layer}.${layer}.${places.heads}`;
}

/** [tokens, 2·layers, heads, head] apart: rows 2ℓ and 2ℓ + 1 are keys and values [heads, tokens, head] of layer ℓ. */
const flatPrefix: Rule = ({ param: { shape }, data }, { architecture }) => {
  const [tokens, width] = shape as [number, number];
  const heads = HEADS[architecture as Known];
  const head = width / (2 * LAYERS * heads);
  const part = (row: number) =>
    Array.from({ length: heads * tokens * head }, (_, i) => {
      const [h, t, d] = [Math.floor(i / (tokens * head)), Math.floor(i / head) % tokens, i % head];
      return data[t * width + (row * heads + h) * head + d] as number;
    });
  return Array.from({ length: LAYERS }, (_, layer) => layer).flatMap((layer) => [
    [`${attentionAt(architecture, layer)}.prefix_keys`, part(2 * layer)] as const,
    [`${attentionAt(architecture, layer)}.prefix_values`, part(2 * layer + 1)] as const,
  ]);
};

/** Rows of the last linear of the prefix's MLP by layer. */
const perLayer =
  (key: string, layout: Layout): Rule =>
  ({ param: { shape }, data }, { architecture }) =>
    Array.from({ length: LAYERS }, (_, layer) => {
      const [rows, ...rest] = shape as [number, ...number[]];
      const size = data.length / LAYERS;
      const own = data.slice(layer * size, (layer + 1) * size);
      return [`${attentionAt(architecture, layer)}.${key}`, layout(own, [rows / LAYERS, ...rest])] as const;
    });

const prefix: Readonly<Record<string, Rule>> = {
  prompt_embeddings: flatPrefix,
  'prompt_encoder.embedding.weight': ({ data }) => [['prefix_encoder.embedding', data]],
  'prompt_encoder.transform.0.weight': ({ param, data }) => [
    ['prefix_encoder.down', transposed(data, param.shape)],
  ],
  'prompt_encoder.transform.0.bias': ({ data }) => [['prefix_encoder.down.bias', data]],
  'prompt_encoder.transform.2.weight': perLayer('prefix_up', transposed),
  'prompt_encoder.transform.2.bias': perLayer('prefix_up.bias', same),
  'prefix_gate.weight': atModule('prefix_gate', transposed),
  'prefix_gate.bias': atModule('prefix_gate.bias', same),
};

const PROMPTS = {
  gpt2: 'transformer.wte',
  llama: 'model.embed_tokens',
  bert: 'bert.embeddings.word_embeddings',
};

/** The prompt or its encoder: matrices of dense layers and of the LSTM are transposed, embeddings are not. */
const prompt: MethodMapping['translate'] = (all, _of, { architecture }) =>
  new Map(
    all.map(({ param: { key, shape }, data }) => {
      const weight = shape.length === 2 && !key.includes('embedding');
      const name = key.replace(/\.weight$/, '');
      return [`${PROMPTS[architecture as Known]}.prompt.${name}`, weight ? transposed(data, shape) : data];
    }),
  );

const VOCABULARY_LOGITS = 64;

/** Without rows of virtual tokens. */
const realTokens: NonNullable<MethodMapping['logits']> = (recorded, reference) => {
  if (reference.logitsCoverVirtualTokens !== true) return recorded;
  const { length } = reference.config as { length: number };
  const time = recorded.length / (reference.logitRows * VOCABULARY_LOGITS);
  return recorded.filter((_, i) => Math.floor(i / VOCABULARY_LOGITS) % time >= length);
};

const settings = ({ config }: Reference, ...names: string[]) =>
  Object.fromEntries(names.filter((name) => name in config).map((name) => [name, config[name]]));

const blocks = (reference: Reference, method: string, config: InsertEntry['config'] = {}): InsertEntry => ({
  method,
  config: { ...settings(reference, 'size', 'activation'), ...config },
});

export const additive: Readonly<Record<string, MethodMapping>> = {
  houlsby: {
    entries: (reference) => [
      blocks(reference, 'houlsby'),
      ...(reference.config.norms === true ? [{ method: 'ln-tuning' }] : []),
    ],
    translate: translate(adapter),
  },
  pfeiffer: { entries: (reference) => [blocks(reference, 'pfeiffer')], translate: translate(adapter) },
  parallel: {
    entries: (reference) => [blocks(reference, 'parallel', { scaling: reference.config.scale })],
    translate: translate(adapter),
  },
  compacter: {
    entries: (reference) => [
      {
        ...blocks(reference, 'compacter', settings(reference, 'divisor')),
        targeting: { targets: reference.config.plusplus === true ? 'role:feed-forward' : 'all' },
      },
    ],
    translate: translate(phm),
  },
  'prefix-tuning': {
    needs: ({ positionsShifted }) => (positionsShifted === true ? ['attention', 'position'] : ['attention']),
    entries: (reference) => [
      {
        method: 'prefix',
        config: {
          ...settings(reference, 'length', 'projection', 'hidden'),
          positions: reference.positionsShifted === true ? 'shift' : 'keep',
        },
      },
    ],
    translate: translate(prefix),
  },
  'prompt-tuning': {
    needs: () => ['prompt'],
    entries: (reference) => [{ method: 'prompt', config: settings(reference, 'length') }],
    translate: prompt,
    logits: realTokens,
  },
  'p-tuning': {
    needs: () => ['prompt'],
    entries: (reference) => [
      { method: 'p-tuning', config: settings(reference, 'length', 'encoder', 'hidden', 'layers') },
    ],
    translate: prompt,
    logits: realTokens,
  },
  mam: {
    needs: () => ['attention'],
    entries: (reference) => [
      {
        method: 'mam',
        config: {
          ...settings(reference, 'length', 'size', 'activation'),
          scaling: reference.config.scale,
          projection: false,
        },
      },
    ],
    translate: translate({ ...adapter, ...prefix }),
  },
  unipelt: {
    needs: () => ['attention'],
    entries: (reference) => [
      { method: 'unipelt', config: { ...settings(reference, 'rank', 'length', 'size'), projection: false } },
    ],
    translate: translate({
      ...adapter,
      ...prefix,
      'lora_A.weight': atModule('lora_A', transposed),
      'lora_B.weight': atModule('lora_B', transposed),
      'lora_gate.weight': atModule('lora_gate', transposed),
      'lora_gate.bias': atModule('lora_gate.bias', same),
    }),
  },
};
