import { expect, test } from 'vitest';
import { findWeightSites, type LinearSite } from '../../passes/sites/index.js';
import { attr } from '../../src/attribute.js';
import type { Value } from '../../src/graph.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { expectLinear, feed, floats, ints, Sketch } from './graphs.js';

const linears = (s: Sketch): LinearSite[] =>
  findWeightSites(s.model).filter((site): site is LinearSite => site.kind === 'linear');

test('grouped-query qkv_proj: three parts of unequal width beside the packed name, by Split', async () => {
  const s = new Sketch();
  const x = s.input('x', [2, 3, 4]);
  const plain = s.node('MatMul', [x, s.weight('layers.0.self_attn.qkv_proj.weight', floats([4, 8]))]);
  const y = s.node('Add', [plain, s.weight('layers.0.self_attn.qkv_proj.bias', floats([8], 3))]);
  const parts = s.nodes(
    'Split',
    [y, s.weight('sizes', ints([4, 2, 2]))],
    { axis: attr.int(-1) },
    {
      outputs: ['q', 'k', 'v'],
    },
  );
  for (const [i, part] of parts.entries()) s.output(part, [2, 3, i === 0 ? 4 : 2]);
  const sites = linears(s);
  expect(sites.map(({ path, packedIn }) => [path, packedIn])).toEqual([
    ['layers.0.self_attn.qkv_proj', undefined],
    ...['q_proj', 'k_proj', 'v_proj'].map((name) => [
      `layers.0.self_attn.${name}`,
      'layers.0.self_attn.qkv_proj',
    ]),
  ]);
  expect(sites.map(({ weight }) => weight.columns)).toEqual([
    undefined,
    { start: 0, end: 4 },
    { start: 4, end: 6 },
    { start: 6, end: 8 },
  ]);
  expect(sites.slice(1).map(({ y }) => y)).toEqual(parts);
  for (const site of sites) await expectLinear(s, site, { x: feed([2, 3, 4]) });
});

test('GPT-2 c_attn: parts behind the Reshape read x before its own', async () => {
  const s = new Sketch();
  const x = s.input('x', [2, 3, 4]);
  const flat = s.node('Reshape', [x, s.weight('s2', ints([-1, 4]))]);
  const gemm = s.node('Gemm', [
    flat,
    s.weight('h.0.attn.c_attn.weight', floats([4, 12])),
    s.weight('h.0.attn.c_attn.bias', floats([12], 5)),
  ]);
  const y = s.node('Reshape', [gemm, s.weight('s3', ints([2, 3, 12]))]);
  const parts = s.nodes('Split', [y], { axis: attr.int(2) }, { outputs: ['q', 'k', 'v'] });
  for (const part of parts) s.output(part, [2, 3, 4]);
  const sites = linears(s);
  expect(sites.map(({ path }) => path)).toEqual(
    ['', '.q', '.k', '.v'].map((part) => `h.0.attn.c_attn${part}`),
  );
  expect(sites[0]).toMatchObject({ x: flat, y: gemm });
  expect(sites[2]?.x).toBe(x);
  for (const site of sites) await expectLinear(s, site, { x: feed([2, 3, 4]) });
});

test('parts by Slice; a reader of everything closes the package', async () => {
  for (const open of [true, false]) {
    const s = new Sketch();
    const x = s.input('x', [3, 4]);
    const y = s.node('MatMul', [x, s.weight('mlp.gate_up_proj.weight', floats([4, 6]))]);
    const axis = s.weight('axis', ints([1]));
    const slice = (from: number, to: number): void => {
      const bounds = [s.weight(`s${from}`, ints([from])), s.weight(`e${to}`, ints([to])), axis];
      s.output(s.node('Slice', [y, ...bounds]), [3, 3]);
    };
    slice(0, 3);
    slice(3, 2 ** 31);
    if (!open) s.output(s.node('Relu', [y]), [3, 6]);
    const sites = linears(s);
    expect(sites.map(({ path }) => path)).toEqual(
      open ? ['mlp.gate_up_proj', 'mlp.gate_proj', 'mlp.up_proj'] : ['mlp.gate_up_proj'],
    );
    for (const site of sites) await expectLinear(s, site, { x: feed([3, 4]) });
  }
});

test("torch's in_proj has virtual thirds without outputs", () => {
  const s = new Sketch();
  const x = s.input('x', [3, 4]);
  const y = s.node(
    'MatMul',
    [x, s.weight('onnx::MatMul_7', floats([4, 12]))],
    {},
    { name: '/enc/self_attn/MatMul' },
  );
  s.output(s.node('Add', [s.weight('enc.self_attn.in_proj_bias', floats([12])), y]), [3, 12]);
  const sites = linears(s);
  expect(sites.map(({ path, outDim, y }) => [path, outDim, y !== undefined])).toEqual([
    ['enc.self_attn', 12, true],
    ['enc.self_attn.q_proj', 4, false],
    ['enc.self_attn.k_proj', 4, false],
    ['enc.self_attn.v_proj', 4, false],
  ]);
  expect(sites[3]?.bias?.columns).toEqual({ start: 8, end: 12 });
});

test('fused Attention: weights without outputs, named by what the output was called', () => {
  const s = new Sketch();
  const x = s.input('x', [1, 3, 4]);
  const inputs = [
    x,
    s.weight('Attention_0_qkv_weight', floats([4, 12])),
    s.weight('Attention_0_qkv_bias', floats([12])),
  ];
  const y = s.node(
    'Attention',
    inputs,
    { num_heads: attr.int(2) },
    {
      domain: 'com.microsoft',
      name: 'Attention_0',
      outputs: ['/layers.0/self_attn/Reshape_3_output_0'],
    },
  );
  s.output(y, [1, 3, 4]);
  const sites = linears(s);
  expect(sites.map(({ path, y, source }) => [path, y, source])).toEqual(
    ['', '.q_proj', '.k_proj', '.v_proj'].map((part) => [
      `layers.0.self_attn${part}`,
      undefined,
      'output name',
    ]),
  );
  expect(sites[1]?.weight.columns).toEqual({ start: 0, end: 4 });
});

test('biases that fused ops absorbed are known and not yet in y', () => {
  const s = new Sketch();
  const microsoft = { domain: 'com.microsoft' };
  const x = s.input('x', [1, 3, 4]);
  const up = s.node('MatMul', [x, s.weight('fc1.weight', floats([4, 4]))]);
  const act = s.node('BiasGelu', [up, s.weight('fc1.bias', floats([4]))], {}, microsoft);
  const down = s.node('MatMul', [act, s.weight('fc2.weight', floats([4, 4]))]);
  const norm = ['gamma', 'beta', 'fc2.bias'].map((name) => s.weight(name, floats([4])));
  s.output(s.node('SkipLayerNormalization', [down, x, ...norm], {}, microsoft), [1, 3, 4]);
  const sites = linears(s);
  expect(sites.map(({ y, bias }) => [y, bias?.value.name, bias?.included])).toEqual([
    [up, 'fc1.bias', false],
    [down, 'fc2.bias', false],
  ]);
});

test('block-quantised MatMulNBits can be joined at its output', () => {
  const s = new Sketch();
  const x = s.input('x', [1, 3, 32]);
  const packed = s.weight('layers.0.q_proj.weight_Q4', { ...ints([1, 2]), dims: [5, 1, 16], dtype: 'uint8' });
  const y = s.node(
    'MatMulNBits',
    [x, packed, s.weight('scales', floats([5]))],
    { K: attr.int(32), N: attr.int(5), bits: attr.int(4), block_size: attr.int(32) },
    { domain: 'com.microsoft' },
  );
  s.output(y, [1, 3, 5]);
  expect(linears(s)).toMatchObject([
    { path: 'layers.0.q_proj', inDim: 32, outDim: 5, y, dtype: 'float32', weight: { storage: 'packed' } },
  ]);
});

test('rounding to codes and back, before a bias and behind it, hides no parts', () => {
  const s = new Sketch();
  const x = s.input('x', [2, 3, 4]);
  const scale = s.weight('scale', { ...floats([1]), dims: [] });
  const zero = s.weight('zero', tensorOfBytes('int8', [], new Uint8Array(1)));
  const rounding = (value: Value): Value =>
    s.node('DequantizeLinear', [s.node('QuantizeLinear', [value, scale, zero]), scale, zero]);
  const product = s.node('MatMul', [x, s.weight('attn.qkv_proj.weight', floats([4, 12]))]);
  const biased = s.node('Add', [rounding(product), s.weight('attn.qkv_proj.bias', floats([12], 3))]);
  const parts = s.nodes('Split', [rounding(biased)], { axis: attr.int(-1) }, { outputs: ['q', 'k', 'v'] });
  for (const part of parts) s.output(part, [2, 3, 4]);
  const [whole, ...own] = linears(s);
  expect(whole).toMatchObject({ path: 'attn.qkv_proj', y: product, bias: { included: false } });
  expect(own.map(({ path, y }) => [path, y])).toEqual(
    ['q_proj', 'k_proj', 'v_proj'].map((name, i) => [`attn.${name}`, parts[i]]),
  );
  for (const { bias } of own) expect(bias?.included).toBe(true);
});
