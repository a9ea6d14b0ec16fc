/** Every export of a model shows the same places: norms, residual blocks, attentions, positions, prompts, and roles. */
import { describe, expect, test } from 'vitest';
import { findSites, type Site, type SiteKind } from '../../passes/sites/index.js';
import { readModel } from '../../src/onnx/index.js';
import { type Architecture, goldenPath, type ModelFixture, modelFixtures } from '../helpers/fixtures.js';

interface Expected {
  readonly attentions: readonly string[];
  /** Attention and feed-forward blocks, by turns. */
  readonly blocks: readonly string[];
  readonly postNorm: boolean;
  readonly heads: readonly [heads: number, keyValueHeads: number, headDim: number];
  readonly position: string;
  readonly prompt: string;
  /** Last components of linears with a role, for one layer. */
  readonly roles: Readonly<Record<string, string>>;
}

const layers = (pattern: string): string[] => [0, 1].map((layer) => pattern.replace('%', String(layer)));
const blocks = (attention: string, feedForward: string): string[] =>
  [0, 1].flatMap((layer) => [attention, feedForward].map((pattern) => pattern.replace('%', String(layer))));

const encoder = (root: string): Expected => ({
  attentions: layers(`${root}.encoder.layer.%.attention.self`),
  blocks: blocks(`${root}.encoder.layer.%.attention`, `${root}.encoder.layer.%.ffn`),
  postNorm: true,
  heads: [4, 4, 8],
  position: `${root}.embeddings.position_ids`,
  prompt: `${root}.embeddings.word_embeddings.prompt`,
  roles: {
    'attention.self.query': 'query',
    'attention.self.key': 'key',
    'attention.self.value': 'value',
    'attention.output.dense': 'attention-output',
    'intermediate.dense': 'up',
    '0.output.dense': 'down',
    '1.output.dense': 'down',
  },
});

const EXPECTED: Readonly<Record<Architecture, Expected>> = {
  bert: encoder('bert'),
  roberta: encoder('roberta'),
  distilbert: {
    attentions: layers('distilbert.transformer.layer.%.attention'),
    blocks: blocks('distilbert.transformer.layer.%.attention', 'distilbert.transformer.layer.%.ffn'),
    postNorm: true,
    heads: [4, 4, 8],
    position: 'distilbert.embeddings.position_ids',
    prompt: 'distilbert.embeddings.word_embeddings.prompt',
    roles: {
      q_lin: 'query',
      k_lin: 'key',
      v_lin: 'value',
      out_lin: 'attention-output',
      lin1: 'up',
      lin2: 'down',
    },
  },
  gpt2: {
    attentions: layers('transformer.h.%.attn'),
    blocks: blocks('transformer.h.%.attn', 'transformer.h.%.mlp'),
    postNorm: false,
    heads: [4, 4, 8],
    position: 'transformer.position_ids',
    prompt: 'transformer.wte.prompt',
    roles: {
      c_attn: 'packed',
      'c_attn.q': 'query',
      'c_attn.k': 'key',
      'c_attn.v': 'value',
      'attn.c_proj': 'attention-output',
      c_fc: 'up',
      'mlp.c_proj': 'down',
    },
  },
  llama: {
    attentions: layers('model.layers.%.self_attn'),
    blocks: blocks('model.layers.%.self_attn', 'model.layers.%.mlp'),
    postNorm: false,
    heads: [4, 2, 8],
    position: 'model.rotary_emb',
    prompt: 'model.embed_tokens.prompt',
    roles: {
      q_proj: 'query',
      k_proj: 'key',
      v_proj: 'value',
      o_proj: 'attention-output',
      gate_proj: 'gate',
      up_proj: 'up',
      down_proj: 'down',
    },
  },
};

const only = <K extends SiteKind>(sites: readonly Site[], kind: K): Extract<Site, { kind: K }>[] =>
  sites.filter((site): site is Extract<Site, { kind: K }> => site.kind === kind);
const paths = (sites: readonly Site[]): string[] => sites.map(({ path }) => path);

/** Opset 23 has attention as one op. */
const isFused = ({ opset }: ModelFixture): boolean => opset >= 23;
/** Exporters that fold constants look the table up (or compute the angles) while they export, where the length is fixed. */
const isFolded = ({ exporter, dynamic, variant }: ModelFixture): boolean =>
  exporter === 'dynamo' && !dynamic && variant !== 'unfolded';

describe.each(modelFixtures().map((fixture) => [fixture.name, fixture] as const))('%s', (_name, fixture) => {
  const expected = EXPECTED[fixture.architecture];
  const sites = findSites(readModel(fixture.path));

  test('norms are those of torch', () => {
    const wanted = fixture.modules.filter(({ kind }) => /Norm$/.test(kind));
    const found = only(sites, 'norm');
    expect(paths(found)).toEqual(wanted.map(({ path }) => path));
    expect(found.map(({ offset }) => offset !== undefined)).toEqual(wanted.map(({ bias }) => bias));
    expect(found.map(({ dim }) => dim)).toEqual(wanted.map(({ weightShape }) => weightShape[0]));
    expect(found.every(({ dtype, offsetGain }) => dtype === fixture.dtype && !offsetGain)).toBe(true);
    for (const { path, gain } of found) expect(gain.value.name).toBe(`${path}.weight`);
  });

  test('residual blocks', () => {
    const found = only(sites, 'sublayer');
    expect(paths(found)).toEqual(expected.blocks);
    expect(found.map(({ role }) => role)).toEqual(
      [0, 1].flatMap(() => ['attention', 'feed-forward'] as const),
    );
    expect(found.map(({ norm }) => norm.length > 0)).toEqual(found.map(() => expected.postNorm));
    const dims = new Set(found.map(({ dim }) => dim));
    expect([...dims]).toEqual([32]);
  });

  test('attentions', () => {
    const found = only(sites, 'attention');
    expect(paths(found)).toEqual(isFused(fixture) ? [] : expected.attentions);
    for (const site of found) {
      expect([site.heads, site.keyValueHeads, site.headDim]).toEqual(expected.heads);
      expect(site.cross).toBe(false);
      expect(site.hidden).toBeDefined();
      // √8 in all, wherever the exporter multiplies; rounded to 8 bits in bfloat16. sdpa scales queries and keys alike.
      const all = site.scale * site.keyScale * (site.keyScale === 1 ? 1 : site.keyScale);
      expect(Math.abs(all - 1 / Math.sqrt(8))).toBeLessThan(fixture.dtype === 'float32' ? 1e-6 : 2e-3);
    }
  });

  test('roles of linears', () => {
    const wanted = Object.entries(expected.roles);
    for (const { path, role } of only(sites, 'linear'))
      expect(role, path).toBe(
        wanted.find(([name]) => path.endsWith(`.${name}`) && !/pooler/.test(path))?.[1],
      );
  });

  test('positions and prompt, where the export has them', () => {
    const positions = only(sites, 'position');
    // RoBERTa counts the tokens that are no padding: that depends on the input always.
    const none = isFolded(fixture) && fixture.architecture !== 'roberta';
    expect(paths(positions)).toEqual(none ? [] : [expected.position]);
    const prompts = only(sites, 'prompt');
    expect(paths(prompts)).toEqual(fixture.dynamic ? [expected.prompt] : []);
    for (const { inputs, outputs, dim } of prompts) {
      expect(inputs.map(({ value, fill }) => [value.name, fill])).toEqual(
        fixture.inputs.map(({ name }) => [
          name,
          { input_ids: 'token', attention_mask: 'one', token_type_ids: 'zero' }[name],
        ]),
      );
      expect(outputs.map(({ value, axis }) => [value.name, axis])).toEqual(
        fixture.task === 'causal-lm' ? [['logits', 1]] : [],
      );
      expect(dim).toBe(32);
    }
  });

  test('paths are unique in a kind, and sites are in order of execution', () => {
    const names = sites.map(({ kind, path }) => `${kind} ${path}`);
    expect(new Set(names).size).toBe(names.length);
    const attends = sites.filter(({ kind }) => kind === 'attention' || kind === 'sublayer');
    const at = (site: Site | undefined): number => (site === undefined ? -1 : sites.indexOf(site));
    for (const site of attends) {
      const layer = site.path.match(/\.\d\./)?.[0] ?? '';
      const role = (name: string) =>
        only(sites, 'linear').find((one) => one.role === name && one.path.includes(layer));
      const ends = site.kind === 'sublayer' && site.role === 'feed-forward' ? 'down' : 'value';
      expect(at(site)).toBeGreaterThan(at(role(ends)));
    }
  });
});

interface Golden {
  readonly file: string;
  readonly counts: Readonly<Partial<Record<SiteKind, number>>>;
  readonly some: readonly string[];
}

const GOLDENS: readonly Golden[] = [
  {
    file: 'bert_toy_ort_optimized.onnx',
    counts: { norm: 12, sublayer: 10, attention: 5, position: 1, prompt: 1 },
    some: ['norm cls.predictions.transform.LayerNorm', 'sublayer bert.encoder.layer.4.ffn'],
  },
  {
    file: 'distilbert_classifier_optimum.onnx',
    counts: { norm: 5, sublayer: 4, attention: 2, position: 1, prompt: 1 },
    some: ['norm distilbert.transformer.layer.1.output_layer_norm'],
  },
  {
    // Past keys and values lengthen the sequence in ways of their own: no prompt.
    file: 'gpt2_past.onnx',
    counts: { norm: 25, sublayer: 24, attention: 12, position: 1, prompt: 0 },
    some: ['attention h.11.attn', 'sublayer h.11.mlp', 'position position_ids'],
  },
  {
    // Both attentions are fused ops; one projects inside.
    file: 'whisper_hf_decoder_attention.onnx',
    counts: { norm: 3, sublayer: 3, attention: 0, position: 0, prompt: 0 },
    some: ['sublayer self_attn', 'sublayer encoder_attn'],
  },
];

for (const { file, counts, some } of GOLDENS) {
  const path = goldenPath(`models/${file}`);
  test.skipIf(path === undefined)(`golden ${file}`, () => {
    const sites = findSites(readModel(path ?? ''));
    const found = Object.fromEntries(
      Object.keys(counts).map((kind) => [kind, sites.filter((site) => site.kind === kind).length]),
    );
    expect(found).toEqual(counts);
    const names = sites.map((site) => `${site.kind} ${site.path}`);
    expect(some.filter((wanted) => !names.includes(wanted))).toEqual([]);
  });
}
