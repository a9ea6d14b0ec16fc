/** Targeting rules one by one; `peft-targeting.test.ts` compares whole configurations with peft. */
import { describe, expect, test } from 'vitest';
import { findWeightSites, type Site } from '../../passes/sites/index.js';
import { selectSites, type Targeting } from '../../passes/sites/targeting.js';
import { PeftCompileError } from '../../src/errors.js';
import { readModel } from '../../src/onnx/index.js';
import { modelFixture } from '../helpers/fixtures.js';
import { floats, Sketch } from './graphs.js';

const sitesOf = (name: string): Site[] => findWeightSites(readModel(modelFixture(name).path));
const bert = sitesOf('bert.dynamo.dynamic');
const llama = sitesOf('llama.ts.dynamic');
const gpt2 = sitesOf('gpt2.dynamo.dynamic');
const roberta = sitesOf('roberta.ts.dynamic');
const distilbert = sitesOf('distilbert.ts.dynamic');

const paths = (sites: readonly Site[], targeting: Targeting): string[] =>
  selectSites(sites, targeting).map(({ site }) => site.path);

function refusal(sites: readonly Site[], targeting: Targeting): PeftCompileError {
  try {
    selectSites(sites, targeting);
  } catch (error) {
    if (error instanceof PeftCompileError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('lists match whole path components at the end', () => {
  test('query and value', () => {
    expect(paths(bert, { targets: ['query', 'value'] })).toEqual(
      [0, 1].flatMap((i) => ['query', 'value'].map((m) => `bert.encoder.layer.${i}.attention.self.${m}`)),
    );
  });
  test('several components, and whole paths', () => {
    expect(paths(bert, { targets: ['attention.output.dense', 'classifier'] })).toEqual([
      'bert.encoder.layer.0.attention.output.dense',
      'bert.encoder.layer.1.attention.output.dense',
      'classifier',
    ]);
  });
  test('no part of a component', () => {
    expect(refusal(bert, { targets: ['uery'] }).code).toBe('E_NO_MATCH');
    expect(paths(bert, { targets: ['word_embeddings'] })).toEqual(['bert.embeddings.word_embeddings']);
  });
});

describe('strings are regular expressions for the whole path', () => {
  test('as in Python', () => {
    expect(paths(llama, { targets: String.raw`.*\.layers\.1\.self_attn\.[qv]_proj` })).toEqual([
      'model.layers.1.self_attn.q_proj',
      'model.layers.1.self_attn.v_proj',
    ]);
    expect(paths(llama, { targets: '(?i)(?P<any>.*)\\.Q_PROJ\\Z' })).toHaveLength(2);
  });
  test('a suffix alone is no match', () => {
    expect(refusal(llama, { targets: 'q_proj' }).code).toBe('E_NO_MATCH');
  });
  test('alternatives are held together', () => {
    expect(paths(llama, { targets: 'lm_head|.*down_proj' })).toEqual([
      'model.layers.0.mlp.down_proj',
      'model.layers.1.mlp.down_proj',
      'lm_head',
    ]);
  });
  test('a broken one is named', () => {
    expect(refusal(llama, { targets: '(' })).toMatchObject({ code: 'E_USAGE' });
  });
});

describe('all-linear', () => {
  const all = (sites: readonly Site[]): string[] =>
    sites.filter((site) => site.kind === 'linear' && site.packedIn === undefined).map(({ path }) => path);
  test('leaves the language-model head out', () => {
    expect(paths(llama, { targets: 'all-linear' })).toEqual(all(llama).filter((path) => path !== 'lm_head'));
    expect(paths(gpt2, { targets: 'ALL-linear' })).toEqual(all(gpt2).filter((path) => path !== 'lm_head'));
  });
  test('leaves the classifier out, and nothing before it', () => {
    expect(paths(bert, { targets: 'all-linear' })).toEqual(all(bert).filter((path) => path !== 'classifier'));
    expect(paths(distilbert, { targets: 'all-linear' })).toContain('pre_classifier');
    expect(paths(roberta, { targets: 'all-linear' })).toEqual(
      all(roberta).filter((path) => !path.startsWith('classifier.')),
    );
  });
  test('knows a head without a name by its vocabulary', () => {
    const s = new Sketch();
    const x = s.node('Gather', [s.weight('t.weight', floats([9, 4])), s.input('ids', [2], 'int64')]);
    const mid = s.node('Relu', [s.node('MatMul', [x, s.weight('up.weight', floats([4, 9]))])]);
    const low = s.node('MatMul', [mid, s.weight('down.weight', floats([9, 4]))]);
    s.output(s.node('MatMul', [low, s.weight('302', floats([4, 9]))]), [2, 9]);
    // `up` has as many outputs as there are words, but further linears behind it.
    expect(paths(findWeightSites(s.model), { targets: 'all-linear' })).toEqual(['up', 'down']);
  });
});

test('exclusions win, by list and by expression; modules to save are left alone with all below', () => {
  expect(paths(bert, { targets: ['dense'], exclude: ['output.dense', 'pooler.dense'] })).toEqual([
    'bert.encoder.layer.0.intermediate.dense',
    'bert.encoder.layer.1.intermediate.dense',
  ]);
  expect(paths(bert, { targets: ['query'], exclude: String.raw`.*\.0\..*` })).toEqual([
    'bert.encoder.layer.1.attention.self.query',
  ]);
  expect(paths(roberta, { targets: ['dense', 'out_proj'], modulesToSave: ['classifier'] })).toEqual(
    paths(roberta, { targets: ['dense'], exclude: ['classifier.dense'] }),
  );
  expect(refusal(bert, { targets: ['query'], exclude: ['query'] }).code).toBe('E_NO_MATCH');
  expect(refusal(bert, { targets: ['query'], exclude: ['quarry'] }).message).toContain("'query'");
});

test('layers: the first number counts, or the one behind the named list', () => {
  expect(paths(llama, { targets: ['q_proj'], layers: 1 })).toEqual(['model.layers.1.self_attn.q_proj']);
  expect(paths(gpt2, { targets: ['c_proj'], layers: [0], layersPattern: 'h' })).toEqual([
    'transformer.h.0.attn.c_proj',
    'transformer.h.0.mlp.c_proj',
  ]);
  expect(refusal(gpt2, { targets: ['c_proj'], layers: [0], layersPattern: ['blocks'] }).code).toBe(
    'E_NO_MATCH',
  );
  expect(refusal(gpt2, { targets: '.*c_proj', layers: [0] }).code).toBe('E_USAGE');
  const s = new Sketch();
  const w = s.weight('model.layers.1.experts.0.up.weight', floats([4, 4]));
  s.output(s.node('MatMul', [s.input('x', [2, 4]), w]), [2, 4]);
  const moe = findWeightSites(s.model);
  expect(paths(moe, { targets: ['up'], layers: [1] })).toHaveLength(1);
  expect(refusal(moe, { targets: ['up'], layers: [0] }).code).toBe('E_NO_MATCH');
  // PEFT's default wants a component before the list: a root `layers.0.q` has none.
  const t = new Sketch();
  t.output(t.node('MatMul', [t.input('x', [2, 4]), t.weight('layers.0.q.weight', floats([4, 4]))]), [2, 4]);
  expect(
    paths(findWeightSites(t.model), { targets: ['q'], layers: [0], layersPattern: 'layers' }),
  ).toHaveLength(1);
});

test('rank and alpha by module: the first pattern that matches the end of the path', () => {
  const selected = selectSites(llama, {
    targets: ['q_proj', 'down_proj'],
    rankPattern: { 'layers.0.self_attn.q_proj': 2, q_proj: 4 },
    alphaPattern: { '.*down_proj': 3 },
  });
  expect(selected.map(({ site, overrides }) => [site.path.replace('model.layers.', ''), overrides])).toEqual([
    ['0.self_attn.q_proj', { rank: 2 }],
    ['0.mlp.down_proj', { alpha: 3 }],
    ['1.self_attn.q_proj', { rank: 4 }],
    ['1.mlp.down_proj', { alpha: 3 }],
  ]);
  // `proj` is no whole component of any path.
  expect(refusal(llama, { targets: ['q_proj'], rankPattern: { proj: 2 } }).code).toBe('E_NO_MATCH');
});

test('parts of a packed weight go by their own names and never beside the whole', () => {
  expect(paths(gpt2, { targets: ['c_attn'] })).toHaveLength(2);
  expect(paths(gpt2, { targets: ['c_attn.q', 'c_attn.v'] })).toEqual(
    [0, 1].flatMap((i) => ['q', 'v'].map((part) => `transformer.h.${i}.attn.c_attn.${part}`)),
  );
  expect(paths(gpt2, { targets: '.*c_attn.*' })).toEqual(paths(gpt2, { targets: ['c_attn'] }));
});

test('a mistyped name is answered with the nearest ones', () => {
  const error = refusal(bert, { targets: ['qurey', 'value'] });
  expect(error.code).toBe('E_NO_MATCH');
  expect(error.message).toMatch(/'qurey'.*Did you mean 'query'/);
  expect(error.exitCode).toBe(4);
});

test('all calls of a module are selected with it', () => {
  const s = new Sketch();
  const w = s.weight('shared.weight', floats([4, 4]));
  const y = s.node('MatMul', [s.node('MatMul', [s.input('x', [2, 4]), w]), w]);
  s.output(y, [2, 4]);
  expect(paths(findWeightSites(s.model), { targets: ['shared'] })).toEqual(['shared', 'shared#2']);
});

test('unknown options are refused', () => {
  expect(refusal(bert, { targets: ['query'], ranks: 3 } as unknown as Targeting).code).toBe('E_USAGE');
  expect(refusal(bert, { targets: [] }).code).toBe('E_USAGE');
});
