import { describe, expect, test } from 'vitest';
import { findWeightSites, type Site } from '../../passes/sites/index.js';
import { moduleOfParameter } from '../../passes/sites/paths/parameter-name.js';
import { parsePythonList } from '../../passes/sites/paths/python-list.js';
import { pathOfScopedName } from '../../passes/sites/paths/scopes.js';
import { walkGraphs, walkNodes } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { modelFixture, modelFixtures } from '../helpers/fixtures.js';
import { floats, Sketch } from './graphs.js';

test('Python lists: both quotes, escapes, empty entries; anything else is refused', () => {
  expect(parsePythonList("['', 'a', 'a.b', 'linear']")).toEqual(['', 'a', 'a.b', 'linear']);
  expect(parsePythonList(`["it's", 'say "x"']`)).toEqual(["it's", 'say "x"']);
  expect(parsePythonList(`['a\\'b', 'c\\\\d', '\\x41\\u00e9\\n']`)).toEqual(["a'b", 'c\\d', 'Aé\n']);
  expect(parsePythonList('[]')).toEqual([]);
  for (const text of ['', "'a'", "['a'", "['a' 'b']", '[a]', "['a]", '[1, 2]'])
    expect(parsePythonList(text), text).toBeUndefined();
});

test('scoped names: containers that repeat their name collapse', () => {
  expect(pathOfScopedName('/mlp/mlp.0/MatMul')).toBe('mlp.0');
  expect(pathOfScopedName('/model/layers.0/self_attn/q_proj/MatMul_1')).toBe(
    'model.layers.0.self_attn.q_proj',
  );
  expect(pathOfScopedName('/bert/encoder/layer.11/output/dense/MatMul')).toBe(
    'bert.encoder.layer.11.output.dense',
  );
  expect(pathOfScopedName('/seq/seq.0/seq.0.1/Gemm')).toBe('seq.0.1');
  expect(pathOfScopedName('/mlp/mlp_norm/MatMul')).toBe('mlp.mlp_norm');
  for (const name of [undefined, 'MatMul_27', '/MatMul', 'node_linear'])
    expect(pathOfScopedName(name)).toBeUndefined();
});

test('parameter names lose the parameter and what tools appended; minted names say nothing', () => {
  const path = (name: string): string | undefined => moduleOfParameter(name)?.path;
  expect(path('bert.encoder.layer.0.attention.self.query.weight_transposed')).toBe(
    'bert.encoder.layer.0.attention.self.query',
  );
  expect(path('h.0.attn.c_attn.weight_resize')).toBe('h.0.attn.c_attn');
  expect(path('model.layers.3.attn.q_proj.MatMul.weight_Q4')).toBe('model.layers.3.attn.q_proj');
  expect(path('enc.self_attn.in_proj_weight')).toBe('enc.self_attn');
  expect(path('linear_77.w_0')).toBe('linear_77');
  expect(path('l0.q.w')).toBe('l0.q');
  expect(moduleOfParameter('W1')).toEqual({ path: 'W1', proper: false });
  for (const name of [
    'onnx::MatMul_248',
    '302',
    'val_85',
    'Attention_0_qkv_weight',
    'ortshared_1_1_8_0_token_77',
  ])
    expect(moduleOfParameter(name), name).toBeUndefined();
});

describe('when better sources are gone, the next ones find the same paths', () => {
  const paths = (model: Model): string[] => findWeightSites(model).map(({ path }) => path);
  const sources = (sites: readonly Site[]): string[] =>
    [...new Set(sites.map(({ source }) => source))].sort();
  const dropNodeMetadata = (model: Model): void => {
    for (const node of walkNodes(model.graph)) node.metadata.clear();
  };

  test('dynamo without node metadata: folded_from and weight names', () => {
    const { path } = modelFixture('bert.dynamo.dynamic');
    const model = readModel(path);
    dropNodeMetadata(model);
    const sites = findWeightSites(model);
    expect(sites.map((site) => site.path)).toEqual(paths(readModel(path)));
    expect(sources(sites)).toEqual(['folded_from', 'weight name']);
  });

  test('dynamo with nothing but namespace', () => {
    const { path } = modelFixture('llama.dynamo.dynamic');
    const model = readModel(path);
    for (const node of walkNodes(model.graph)) node.metadata.delete('pkg.torch.onnx.name_scopes');
    for (const graph of walkGraphs(model.graph))
      for (const value of graph.initializers) value.metadata.clear();
    expect(paths(model)).toEqual(paths(readModel(path)));
  });

  test('TorchScript without node names: outputs, then biases', () => {
    const { path } = modelFixture('bert.ts.dynamic');
    const model = readModel(path);
    for (const node of walkNodes(model.graph)) node.name = undefined;
    const sites = findWeightSites(model);
    expect(sites.map((site) => site.path)).toEqual(paths(readModel(path)));
    expect(sources(sites)).toEqual(['output name', 'weight name']);
    for (const node of walkNodes(model.graph))
      for (const output of node.outputs) if (output !== null) output.name = undefined;
    const byBias = findWeightSites(model);
    expect(byBias.map((site) => site.path)).toEqual(paths(readModel(path)));
    expect(sources(byBias)).toEqual(['bias name', 'weight name']);
  });

  test('no names at all: blocks by structure, every site with a path of its own', () => {
    const { path } = modelFixture('distilbert.ts.dynamic');
    const model = readModel(path);
    for (const node of walkNodes(model.graph)) {
      node.name = undefined;
      for (const output of node.outputs) if (output !== null) output.name = undefined;
    }
    for (const graph of walkGraphs(model.graph))
      for (const value of graph.initializers) value.name = undefined;
    const sites = findWeightSites(model);
    const truth = paths(readModel(path));
    const roles = { q_lin: 'q', k_lin: 'k', v_lin: 'v', out_lin: 'o', lin1: 'up', lin2: 'down' };
    for (const [i, site] of sites.entries()) {
      const match = /layer\.(\d+)\.(?:attention|ffn)\.(\w+)$/.exec(truth[i] ?? '');
      if (match === null) continue;
      expect(site.path).toBe(`layers.${match[1]}.${roles[match[2] as keyof typeof roles]}`);
      expect([site.source, site.confidence]).toEqual(['structure', 0.5]);
    }
    expect(new Set(sites.map((site) => site.path)).size).toBe(truth.length);
  });
});

test('sources that are trusted alone never contradict torch, but for tied tables', () => {
  for (const fixture of modelFixtures()) {
    const truth = new Set(fixture.modules.map(({ path }) => path));
    for (const site of findWeightSites(readModel(fixture.path)))
      for (const { path, confidence, source } of site.guesses) {
        if (confidence < 0.9 || fixture.tied.flat().includes(`${path}.weight`)) continue;
        expect(truth, `${fixture.name} ${site.path} by ${source}`).toContain(path);
      }
  }
});

test('a map of the user wins over everything, by node, weight or output name', () => {
  const s = new Sketch();
  const x = s.input('x', [2, 4]);
  const add = (weight: string, name: string, out: string) => {
    const y = s.node('MatMul', [x, s.weight(weight, floats([4, 4]))], {}, { name, outputs: [out] });
    s.output(y, [2, 4]);
  };
  add('a.weight', 'n1', 'y1');
  add('b.weight', 'n2', 'y2');
  add('c.weight', 'n3', 'y3');
  const map = new Map([
    ['n1', 'first'],
    ['b.weight', 'second'],
    ['y3', 'third'],
  ]);
  const sites = findWeightSites(s.model, { paths: map });
  expect(sites.map(({ path, source }) => [path, source])).toEqual([
    ['first', 'user map'],
    ['second', 'user map'],
    ['third', 'user map'],
  ]);
  expect(sites[0]?.guesses.map(({ path }) => path)).toContain('a');
});

test('a shared bias is worth nothing; a tied weight names the table and not the head', () => {
  const s = new Sketch();
  const ids = s.input('ids', [2], 'int64');
  const table = s.weight('wte.weight', floats([7, 4]));
  const x = s.node('Gather', [table, ids]);
  const bias = s.weight('h.0.mlp.bias', floats([4]));
  let y = x;
  for (const w of ['onnx::MatMul_1', 'onnx::MatMul_2'])
    y = s.node('Add', [s.node('MatMul', [y, s.weight(w, floats([4, 4]))]), bias]);
  const head = s.node('MatMul', [y, s.node('Transpose', [table])], {}, { name: '/lm_head/MatMul' });
  s.output(head, [2, 7]);
  const sites = findWeightSites(s.model);
  expect(sites.map(({ path, source }) => [path, source])).toEqual([
    ['wte', 'weight name'],
    ['linear.0', 'structure'],
    ['linear.1', 'structure'],
    ['lm_head', 'node name'],
  ]);
});

test('two weights that claim one path: the surer keeps it, the other gets a number', () => {
  const s = new Sketch();
  const x = s.input('x', [2, 4]);
  for (const i of [1, 2]) {
    const w = s.weight(`onnx::MatMul_${i}`, floats([4, 4], i));
    s.output(s.node('MatMul', [x, w], {}, { name: `/fc/MatMul${i === 1 ? '' : '_1'}` }), [2, 4]);
  }
  expect(findWeightSites(s.model).map(({ path, callOf }) => [path, callOf])).toEqual([
    ['fc', undefined],
    ['fc#2', undefined],
  ]);
});

test("a module's second call under TorchScript's numbered scope is the same module", () => {
  const s = new Sketch();
  const w = s.weight('onnx::MatMul_1', floats([4, 4]));
  const y = s.node('MatMul', [s.input('x', [2, 4]), w], {}, { name: '/seq/seq.0/MatMul' });
  const again = s.node('Identity', [w]);
  s.output(s.node('MatMul', [y, again], {}, { name: '/seq/seq.0_1/MatMul' }), [2, 4]);
  expect(findWeightSites(s.model).map(({ path, callOf }) => [path, callOf])).toEqual([
    ['seq.0', undefined],
    ['seq.0#2', 'seq.0'],
  ]);
});

test("the model builder's spelling becomes the framework's", () => {
  const s = new Sketch();
  s.model.producerName = 'onnxruntime-genai';
  const w = s.weight('model.layers.0.attn.q_proj.MatMul.weight', floats([4, 4]));
  s.output(
    s.node('MatMul', [s.input('x', [2, 4]), w], {}, { name: '/model/layers.0/attn/q_proj/MatMul' }),
    [2, 4],
  );
  expect(findWeightSites(s.model).map(({ path }) => path)).toEqual(['model.layers.0.self_attn.q_proj']);
});

test("Keras' spelling becomes the framework's", () => {
  const s = new Sketch();
  s.model.producerName = 'keras2onnx';
  const name = 'tf_bert_model/bert/encoder/layer_._0/attention/self/query/Tensordot/MatMul';
  const y = s.node('MatMul', [s.input('x', [2, 4]), s.weight('k0', floats([4, 4]))], {}, { name });
  s.output(y, [2, 4]);
  expect(findWeightSites(s.model).map(({ path }) => path)).toEqual([
    'bert.encoder.layer.0.attention.self.query',
  ]);
});
