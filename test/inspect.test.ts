import { expect, test } from 'vitest';
import { hasGradient } from '../passes/grad/registry.js';
import { type InspectReport, inspect } from '../passes/inspect/inspect.js';
import { attr } from '../src/attribute.js';
import { Graph } from '../src/graph.js';
import { readModel } from '../src/onnx/index.js';
import { goldenPath, modelFixture, modelFixtures } from './helpers/fixtures.js';
import { floats, ints, Sketch } from './sites/graphs.js';

const codes = (report: InspectReport): string[] => report.hazards.map(({ code }) => code);

test('every export: JSON-serialisable, one row per module, counts that add up', () => {
  for (const fixture of modelFixtures()) {
    const report = inspect(readModel(fixture.path), { hasGradient });
    expect(JSON.parse(JSON.stringify(report)), fixture.name).toEqual(report);
    expect(report.inputs.map(({ name }) => name)).toEqual(fixture.inputs.map(({ name }) => name));
    expect(report.outputs.map(({ name }) => name)).toEqual(fixture.outputs.map(({ name }) => name));
    expect(report.model.opsets['ai.onnx']).toBe(fixture.opset);
    expect(report.model.exporter.id).toBe(fixture.exporter === 'ts' ? 'torch-torchscript' : 'torch-dynamo');
    const { parameters } = report;
    expect(parameters.byDtype.reduce((sum, { elements }) => sum + elements, 0)).toBe(parameters.elements);
    // All of torch's weights are there, at the least, but for tables folded away and shared vectors.
    const matrices = fixture.modules
      .filter(({ path, kind }) => kind !== 'LayerNorm' && report.sites.some((site) => site.path === path))
      .map(({ weightShape }) => weightShape.reduce((product, dim) => product * dim, 1));
    const tied = fixture.tied.length > 0 ? Math.max(...matrices) : 0;
    expect(parameters.elements).toBeGreaterThanOrEqual(
      matrices.reduce((sum, count) => sum + count, 0) - tied,
    );
    expect(codes(report).filter((code) => code === 'no-sites' || code === 'unknown-ops')).toEqual([]);
    expect(report.operators.reduce((sum, { count }) => sum + count, 0)).toBe(report.model.nodes);
  }
});

test('rows say how a weight is stored and where a method joins', () => {
  const report = inspect(readModel(modelFixture('bert.ts.dynamic').path));
  const row = report.sites.find(({ path }) => path === 'classifier');
  expect(row).toMatchObject({
    kind: 'linear',
    op: 'Gemm',
    layout: '[out, in]',
    dtype: 'float32',
    storage: 'dense',
    weight: 'classifier.weight',
    bias: 'classifier.bias',
    tap: 'output',
    source: 'weight name',
    head: true,
    sharedWith: [],
    conflicts: [],
  });
  expect(report.sites.find(({ path }) => path.endsWith('1.attention.self.key'))).toMatchObject({
    op: 'MatMul',
    layout: '[in, out]',
    head: false,
  });
  expect(report.inputs[0]).toMatchObject({ dtype: 'int64', shape: ['batch', 'sequence'] });
  expect(report.operators[0]?.gradient).toBeNull();
});

test('GPT-2: the tied head is reported as shared or as a copy, parts of packed weights by their width', () => {
  const report = inspect(readModel(modelFixture('gpt2.ts.dynamic').path));
  const pairs = report.shared.filter(({ kind }) => kind === 'untied' || kind === 'tied');
  expect(pairs.flatMap(({ readers }) => readers)).toEqual(['transformer.wte', 'lm_head']);
  const parts = report.sites.filter(({ packedIn }) => packedIn !== null);
  expect(parts.map(({ columns }) => columns)).toEqual(parts.map(() => (report.sites[2]?.columns ?? 0) / 3));
});

test('operators without a gradient rule are named only where gradients would flow', () => {
  const s = new Sketch();
  const x = s.input('x', [2, 4]);
  const before = s.node('Hardmax', [x]);
  const y = s.node('MatMul', [before, s.weight('m.weight', floats([4, 4]))]);
  const behind = s.node('Softmax', [y]);
  const shape = s.node('Shape', [behind]);
  const size = s.node('ReduceProd', [shape]);
  s.output(s.node('Add', [behind, s.node('Cast', [size], { to: attr.int(1) })]), [2, 4]);
  const report = inspect(s.model, { hasGradient: (op) => op === 'Add' });
  const hazard = report.hazards.find(({ code }) => code === 'no-gradient');
  expect(hazard).toMatchObject({ where: ['Softmax'], count: 1 });
  expect(report.operators.find(({ op }) => op === 'Hardmax')).toMatchObject({
    onTrainablePath: 0,
    gradient: false,
  });
  expect(report.operators.find(({ op }) => op === 'Softmax')).toMatchObject({ onTrainablePath: 1 });
});

test('hazards: quantised weights, fused and unknown ops, branches, functions, defaults, versions', () => {
  const s = new Sketch();
  s.model.irVersion = 99;
  s.model.opsets.set('', 30);
  const x = s.input('x', [2, 32]);
  const stored = s.weight('a.weight', { ...ints([1, 2, 3, 4]), dims: [32, 1], dtype: 'int8' });
  const first = s.node('MatMul', [x, s.node('DequantizeLinear', [stored, s.weight('scale', floats([]))])]);
  const packed = s.weight('b.weight_Q4', { ...ints([1, 2]), dims: [5, 1, 16], dtype: 'uint8' });
  const second = s.node(
    'MatMulNBits',
    [x, packed, s.weight('scales', floats([5]))],
    {
      K: attr.int(32),
      N: attr.int(5),
      bits: attr.int(4),
      block_size: attr.int(32),
      weight_prepacked: attr.int(1),
    },
    { domain: 'com.microsoft' },
  );
  const third = s.node('Mystery', [second], {}, { domain: 'my.ops' });
  const branch = (): Graph => {
    const inner = new Sketch(17, new Graph());
    return inner.output(inner.node('Relu', [first]), [2, 1]).graph;
  };
  const value = s.node('If', [s.input('c', [], 'bool')], {
    then_branch: { type: 'graph', value: branch() },
    else_branch: { type: 'graph', value: branch() },
  });
  s.graph.addInput(s.weight('optional', floats([3])));
  s.output(value, [2, 1]).output(third, [2, 5]);
  const report = inspect(s.model);
  expect(codes(report).sort()).toEqual([
    'fused-ops',
    'nested-graphs',
    'optional-inputs',
    'ort-training-version',
    'prepacked-weights',
    'quantized-ops',
    'quantized-weights',
    'runtime-version',
    'unknown-ops',
  ]);
  const order = report.hazards.map(({ severity }) => severity);
  expect(order).toEqual([...order].sort((a, b) => RANK[a] - RANK[b]));
  expect(report.hazards.find(({ code }) => code === 'quantized-weights')).toMatchObject({
    count: 2,
    where: ['a', 'b'],
  });
  expect(report.model.nestedGraphs).toBe(2);
  // The optional input is no input that has to be fed.
  expect(report.inputs.map(({ name }) => name)).toEqual(['x', 'c']);
});

const RANK = { error: 0, warning: 1, info: 2 } as const;

test('weights with several readers: tied, reused, merged by value, or a suspicious copy', () => {
  const s = new Sketch();
  const ids = s.input('ids', [2], 'int64');
  const table = s.weight('wte.weight', floats([7, 4]));
  const x = s.node('Gather', [table, ids]);
  const again = s.weight('fc.weight', floats([4, 4]));
  const bias = s.weight('fc.bias', floats([4]));
  let y = x;
  for (let i = 0; i < 2; i++) y = s.node('Add', [s.node('MatMul', [y, again]), bias]);
  s.output(s.node('MatMul', [y, s.node('Transpose', [table])], {}, { name: '/lm_head/MatMul' }), [2, 7]);
  s.output(s.node('MatMul', [y, s.weight('head.weight', floats([4, 7]))]), [2, 7]);
  const { shared, sites } = inspect(s.model);
  expect(shared.map(({ weight, kind, readers }) => [weight, kind, readers.length])).toEqual([
    ['wte.weight', 'tied', 2],
    ['fc.weight', 'reused', 2],
    ['fc.bias', 'deduplicated', 2],
    ['head.weight', 'untied', 2],
  ]);
  expect(sites.find(({ path }) => path === 'lm_head')?.sharedWith).toEqual(['wte']);
  expect(sites.find(({ path }) => path === 'fc#2')).toMatchObject({ callOf: 'fc', sharedWith: ['fc'] });
});

test('nameless models are reported as such; a map of paths settles it', () => {
  const s = new Sketch();
  const y = s.node('MatMul', [s.input('x', [2, 4]), s.weight('302', floats([4, 4]))]);
  s.output(y, [2, 4]);
  expect(codes(inspect(s.model))).toContain('missing-names');
  const named = inspect(s.model, { paths: new Map([['302', 'encoder.q']]) });
  expect(codes(named)).not.toContain('missing-names');
  expect(named.sites[0]?.path).toBe('encoder.q');
});

test('contradicting sources are flagged', () => {
  const s = new Sketch();
  const w = s.weight('layers.0.q.weight', floats([4, 4]));
  s.output(s.node('MatMul', [s.input('x', [2, 4]), w], {}, { name: '/layers.0/k/MatMul' }), [2, 4]);
  const report = inspect(s.model);
  expect(report.sites[0]?.conflicts).toEqual(['layers.0.k by node name']);
  expect(report.hazards.find(({ code }) => code === 'path-conflicts')?.count).toBe(1);
});

test('a model with nothing to adapt is an error of its own', () => {
  const s = new Sketch();
  s.output(s.node('Relu', [s.input('x', [2])]), [2]);
  expect(inspect(s.model).hazards[0]).toMatchObject({ code: 'no-sites', severity: 'error' });
});

const fused = goldenPath('models/whisper_hf_decoder_attention.onnx');
test.skipIf(fused === undefined)('golden: a fused decoder block', () => {
  const report = inspect(readModel(fused ?? ''));
  expect(report.model.exporter.id).toBe('ort-transformers');
  expect(report.hazards.find(({ code }) => code === 'weight-form-only')?.where).toEqual(['self_attn']);
  expect(codes(report)).toContain('fused-ops');
  expect(report.shared.map(({ weight }) => weight)).toContain('self_attn_layer_norm.weight');
});
