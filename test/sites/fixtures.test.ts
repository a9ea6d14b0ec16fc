/** Every module that torch has is found in every export, under torch's path, with torch's numbers. */
import { afterAll, describe, expect, test } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { findWeightSites, payloadOf, type WeightSite } from '../../passes/sites/index.js';
import { walkGraphs } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import {
  goldenPath,
  type ModelFixture,
  modelFixture,
  modelFixtures,
  numbersOf,
  type TorchModule,
} from '../helpers/fixtures.js';

const KINDS: Readonly<Record<string, WeightSite['kind']>> = {
  Linear: 'linear',
  Conv1D: 'linear',
  Embedding: 'embedding',
};

const whole = (site: WeightSite): boolean => site.kind === 'embedding' || site.packedIn === undefined;

function dimsOf(site: WeightSite): readonly number[] {
  return site.kind === 'linear' ? [site.inDim, site.outDim] : [site.vocab, site.dim];
}

function torchDims({ inDim, outDim, rows, columns }: TorchModule): readonly (number | undefined)[] {
  return inDim === undefined ? [rows, columns] : [inDim, outDim];
}

const STORED: Readonly<Record<string, string>> = { float32: 'F32', float16: 'F16', bfloat16: 'BF16' };

/** Weight[0..1, 0..1] of the [in, out] or [vocab, dim] view, read through `transposed`. */
function corner(site: WeightSite): number[] {
  const tensor = payloadOf(site.weight.value);
  if (tensor === undefined) throw new Error(`${site.path} has no payload`);
  const bytes = Uint8Array.from(tensor.data.read(0, tensor.data.byteLength));
  const values = numbersOf({ dtype: STORED[tensor.dtype] ?? tensor.dtype, shape: tensor.dims, bytes });
  const [rows = 0, columns = 0] = dimsOf(site);
  const at = (i: number, j: number): number =>
    values[site.weight.transposed ? j * rows + i : i * columns + j] ?? Number.NaN;
  return [at(0, 0), at(0, 1), at(1, 0), at(1, 1)];
}

/** Exporters fold a lookup of constant ids into its result: then the table is not in the file. */
function isAbsent(model: Model, { path, kind }: TorchModule): boolean {
  if (kind !== 'Embedding') return false;
  for (const graph of walkGraphs(model.graph))
    for (const value of graph.initializers) if (value.name === `${path}.weight`) return false;
  return true;
}

/** Found by name, torch's modules in the file, absent ones, by fixture: printed at the end. */
const table: { fixture: string; sites: number; found: string; absent: number; sources: string }[] = [];
afterAll(() => console.table(table));

const fixtures = modelFixtures();

describe.each(fixtures.map((fixture) => [fixture.name, fixture] as const))('%s', (name, fixture) => {
  const model = readModel(fixture.path);
  const sites = findWeightSites(model);
  const byPath = new Map(sites.map((site) => [site.path, site]));
  const wanted = fixture.modules.filter(({ kind }) => KINDS[kind] !== undefined);
  const present = wanted.filter((module) => byPath.has(module.path) || !isAbsent(model, module));

  test('every module of torch is a site with its path, kind, dims and orientation', () => {
    for (const module of present) {
      const site = byPath.get(module.path);
      expect(site?.kind, module.path).toBe(KINDS[module.kind]);
      if (site === undefined) continue;
      expect(dimsOf(site), module.path).toEqual(torchDims(module));
      // The file stores the same numbers, rounded to its dtype: 8 significant bits in bfloat16.
      const tolerance = { float32: 1e-7, float16: 2 ** -10, bfloat16: 2 ** -7 }[fixture.dtype];
      const numbers = corner(site);
      for (const [i, value] of (module.corner ?? []).entries())
        expect(Math.abs((numbers[i] ?? Number.NaN) - value), module.path).toBeLessThanOrEqual(
          tolerance * Math.max(1, Math.abs(value)),
        );
    }
    record(name, sites, present, wanted, byPath);
  });

  test('only position tables with constant ids are missing', () => {
    const missing = wanted.filter((module) => !present.includes(module));
    for (const { path } of missing) expect(path).toMatch(/position_embeddings$|wpe$/);
    if (fixture.dynamic) expect(missing).toEqual([]);
  });

  test('nothing else is a site, and paths are unique', () => {
    const extra = sites.filter((site) => whole(site) && !wanted.some(({ path }) => path === site.path));
    expect(extra.map(({ path }) => path)).toEqual([]);
    expect(byPath.size).toBe(sites.length);
  });

  test('biases of torch are in y', () => {
    for (const module of present) {
      const site = byPath.get(module.path);
      if (site?.kind !== 'linear') continue;
      const withBias = site.bias?.included ?? false;
      expect(withBias, module.path).toBe(module.bias);
    }
  });
});

const gpt2 = fixtures.filter(({ architecture }) => architecture === 'gpt2');

test.each(gpt2.map((fixture) => [fixture.name, fixture] as const))(
  '%s: c_attn opens into query, key and value with outputs',
  (_name, { path: file }) => {
    const sites = findWeightSites(readModel(file));
    const packed = sites.filter(({ path }) => path.endsWith('.c_attn'));
    expect(packed.length).toBeGreaterThan(0);
    for (const { path } of packed)
      for (const [i, part] of ['q', 'k', 'v'].entries()) {
        const site = sites.find((one) => one.path === `${path}.${part}`);
        if (site?.kind !== 'linear') throw new Error(`${path}.${part} is missing`);
        expect(site.packedIn).toBe(path);
        expect(site.weight.columns).toEqual({ start: i * site.outDim, end: (i + 1) * site.outDim });
        expect(site.y).toBeDefined();
      }
  },
);

function record(
  fixture: string,
  sites: readonly WeightSite[],
  present: readonly TorchModule[],
  wanted: readonly TorchModule[],
  byPath: ReadonlyMap<string, WeightSite>,
): void {
  const sources = new Map<string, number>();
  for (const site of sites.filter(whole)) sources.set(site.source, (sources.get(site.source) ?? 0) + 1);
  table.push({
    fixture,
    sites: sites.length,
    found: `${present.filter(({ path }) => byPath.has(path)).length}/${present.length}`,
    absent: wanted.length - present.length,
    sources: [...sources].map(([source, count]) => `${source} ${count}`).join(', '),
  });
}

test('both exporters agree on the sites of a model', () => {
  const groups = new Map<string, ModelFixture[]>();
  for (const fixture of fixtures.filter(({ variant }) => variant === 'dynamic')) {
    const group = groups.get(fixture.architecture) ?? [];
    groups.set(fixture.architecture, [...group, fixture]);
  }
  for (const group of groups.values()) {
    const lists = group.map(({ path }) =>
      findWeightSites(readModel(path))
        .map((site) => site.path)
        .sort(),
    );
    for (const list of lists) expect(list).toEqual(lists[0]);
  }
});

interface Golden {
  readonly file: string;
  readonly linears: number;
  readonly embeddings: number;
  readonly some: readonly string[];
}

const GOLDENS: readonly Golden[] = [
  {
    file: 'bert_toy_ort_optimized.onnx',
    linears: 34,
    embeddings: 3,
    some: ['bert.encoder.layer.4.attention.self.value', 'bert.pooler.dense', 'cls.seq_relationship'],
  },
  {
    file: 'distilbert_classifier_optimum.onnx',
    linears: 14,
    embeddings: 2,
    some: ['distilbert.transformer.layer.1.attention.q_lin', 'pre_classifier', 'classifier'],
  },
  { file: 'gpt2_past.onnx', linears: 48, embeddings: 2, some: ['h.11.attn.c_attn', 'h.0.mlp.c_proj', 'wte'] },
  {
    file: 'whisper_hf_decoder_attention.onnx',
    linears: 8,
    embeddings: 0,
    some: ['encoder_attn.q_proj', 'self_attn.q_proj', 'self_attn.out_proj', 'fc2'],
  },
];

for (const { file, linears, embeddings, some } of GOLDENS) {
  const path = goldenPath(`models/${file}`);
  test.skipIf(path === undefined)(`golden ${file}`, () => {
    const sites = findWeightSites(readModel(path ?? ''));
    const count = (kind: WeightSite['kind']): number =>
      sites.filter((site) => site.kind === kind && whole(site)).length;
    expect([count('linear'), count('embedding')]).toEqual([linears, embeddings]);
    const paths = sites.map((site) => site.path);
    expect(some.filter((wanted) => !paths.includes(wanted))).toEqual([]);
    expect(sites.filter(({ confidence }) => confidence < 0.6).map((site) => site.path)).toEqual([]);
  });
}

test('the layers of an inserted adapter are no sites, and those of the base keep theirs', () => {
  for (const name of ['bert.ts.dynamic', 'gpt2.dynamo.dynamic', 'llama.dynamo.dynamic']) {
    const model = readModel(modelFixture(name).path);
    const before = findWeightSites(model).map(({ path }) => path);
    insert(model, { method: 'lora', config: { rank: 2 }, targeting: { targets: 'all-linear' } });
    const after = findWeightSites(model).map(({ path }) => path);
    // The output of c_attn has a second reader now, the adapter's Add, so its parts are closed.
    expect(after).toEqual(before.filter((path) => after.includes(path)));
    const lost = before.filter((path) => !after.includes(path));
    expect(lost.every((path) => /c_attn\.[qkv]$/.test(path))).toBe(true);
  }
});
