/**
 * Methods on graphs that no fixture exports: fused and packed attention, odd layouts, shared and captured weights, weights
 * in nodes, files out of order. Inserted it changes nothing, random parameters do, and the fold computes the same.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allParams } from '../../passes/adapter-record.js';
import { attachAdapter } from '../../passes/insert/insert.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { insert } from '../../runtime/library/insert.js';
import { verify } from '../../runtime/verify.js';
import { attr } from '../../src/attribute.js';
import { cloneModel } from '../../src/clone.js';
import { Graph, type Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import type { Tensor } from '../../src/tensor.js';
import { randomParameters } from '../helpers/adapters.js';
import { floats, ints, Sketch } from '../sites/graphs.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hand-made-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Case {
  readonly name: string;
  readonly build: () => Model;
  /** Each list is inserted, trained (at random) and folded on its own. */
  readonly targets: readonly (readonly string[])[];
}

function attention(): Model {
  const s = new Sketch();
  const x = s.input('x', [2, 3, 8]);
  const weight = s.weight('layer.0.attention.self.weight', floats([8, 24]));
  const y = s.node(
    'Attention',
    [x, weight, s.weight('bias', floats([24], 2))],
    { num_heads: attr.int(2) },
    { domain: 'com.microsoft', outputs: ['layer.0.attention.self/y'] },
  );
  return s.output(y, [2, 3, 8]).model;
}

/** The bias Add comes first in the file; runtimes sort. */
function outOfOrder(): Model {
  const s = new Sketch();
  const x = s.input('x', [2, 3, 4]);
  const plain = s.node('MatMul', [x, s.weight('block.qkv_proj.weight', floats([4, 12]))]);
  const [q, k, v] = s.nodes(
    'Split',
    [plain, s.weight('sizes', ints([4, 4, 4]))],
    { axis: attr.int(-1) },
    {
      outputs: ['q', 'k', 'v'],
    },
  ) as [Value, Value, Value];
  const y = s.node('Add', [s.node('Mul', [q, k]), v]);
  s.output(y, [2, 3, 4]);
  s.graph.reorder([...s.graph.nodes()].reverse());
  return s.model;
}

/** One decoder for the first and for further tokens: both branches hold the same layers over captured weights. */
function merged(): Model {
  const s = new Sketch();
  const x = s.input('x', [2, 3, 4]);
  const flag = s.input('use_cache_branch', [], 'bool');
  const weight = s.weight('decoder.proj.weight', floats([4, 4]));
  const bias = s.weight('decoder.proj.bias', floats([4], 2));
  const branch = (name: string, op: string): Graph => {
    const inner = new Sketch(17, new Graph());
    inner.graph.name = name;
    const plain = inner.node('MatMul', [x, weight], {}, { outputs: [`${name}_mm`] });
    const y = inner.node('Add', [plain, bias], {}, { outputs: [`${name}_add`] });
    const out = inner.node(op, [y], {}, { outputs: [`${name}_out`] });
    inner.output(out, [2, 3, 4]);
    return inner.graph;
  };
  const y = s.node(
    'If',
    [flag],
    {
      then_branch: { type: 'graph', value: branch('with_past', 'Relu') },
      else_branch: { type: 'graph', value: branch('without', 'Tanh') },
    },
    { outputs: ['y'] },
  );
  return s.output(y, [2, 3, 4]).model;
}

function calledTwice(): Model {
  const s = new Sketch();
  const x = s.input('x', [2, 3, 4]);
  const weight = s.weight('shared.weight', floats([4, 4]));
  const first = s.node('Tanh', [s.node('MatMul', [x, weight], {}, { name: '/shared/MatMul' })]);
  const y = s.node('MatMul', [first, weight], {}, { name: '/shared_1/MatMul' });
  return s.output(y, [2, 3, 4]).model;
}

function constants(): Model {
  const s = new Sketch();
  const x = s.input('x', [2, 4, 5, 6]);
  const constant = (name: string, dims: readonly number[], seed: number): Value =>
    s.node('Constant', [], { value: attr.tensor(floats(dims, seed)) }, { outputs: [name] });
  const weight = constant('conv.weight', [3, 4, 1, 1], 1);
  const y = s.node(
    'Conv',
    [x, weight, constant('conv.bias', [3], 2)],
    {},
    { outputs: ['c'], name: '/conv/Conv' },
  );
  const rows = s.node('Transpose', [y], { perm: attr.ints([0, 2, 3, 1]) });
  const head = s.node('MatMul', [rows, constant('head.weight', [3, 2], 4)], {}, { name: '/head/MatMul' });
  return s.output(head, [2, 5, 6, 2]).model;
}

function gemms(): Model {
  const s = new Sketch();
  const x = s.input('x', [4, 5]);
  const y = s.node('Gemm', [x, s.weight('a.weight', floats([3, 4])), s.weight('a.bias', floats([3], 2))], {
    transA: attr.int(1),
    transB: attr.int(1),
    alpha: attr.float(0.5),
    beta: attr.float(2),
  });
  const z = s.node('Gemm', [y, s.weight('b.weight', floats([3, 3], 5))], { alpha: attr.float(-2) });
  return s.output(z, [5, 3]).model;
}

function einsums(): Model {
  const s = new Sketch();
  const x = s.input('x', [2, 3, 4]);
  const heads = s.node('Einsum', [x, s.weight('q.kernel', floats([4, 2, 3]))], {
    equation: attr.string('bsd,dnh->bsnh'),
  });
  const out = s.node('Einsum', [heads, s.weight('o.kernel', floats([5, 2, 3], 3))], {
    equation: attr.string('bsnh,dnh->bsd'),
  });
  const y = s.node('Einsum', [out, s.weight('p.kernel', floats([6, 5], 4))], {
    equation: attr.string('abc,dc->abd'),
  });
  return s.output(y, [2, 3, 6]).model;
}

/** A stored [out, in] half-precision matrix in three axes, cast, reshaped and transposed on the way to the product. */
function chain(): Model {
  const s = new Sketch();
  const x = s.input('x', [2, 3, 4]);
  const cast = s.node('Cast', [s.weight('fc.weight', floats([3, 2, 4]))], { to: attr.int(11) });
  const flat = s.node('Reshape', [
    s.node('Cast', [cast], { to: attr.int(1) }),
    s.weight('rows', ints([6, 4])),
  ]);
  const y = s.node('MatMul', [x, s.node('Transpose', [flat], { perm: attr.ints([1, 0]) })]);
  return s.output(y, [2, 3, 6]).model;
}

const CASES: readonly Case[] = [
  {
    name: 'packed attention',
    build: attention,
    targets: [
      ['self'],
      ['self.query'],
      ['self.query', 'self.value'],
      ['self.query', 'self.key', 'self.value'],
    ],
  },
  { name: 'file out of order', build: outOfOrder, targets: [['qkv_proj'], ['q_proj', 'v_proj'], ['k_proj']] },
  { name: 'merged decoder', build: merged, targets: [['decoder.proj']] },
  { name: 'module called twice', build: calledTwice, targets: [['shared']] },
  { name: 'weights in Constant nodes', build: constants, targets: [['conv'], ['head'], ['conv', 'head']] },
  { name: 'Gemm with factors', build: gemms, targets: [['a'], ['b'], ['a', 'b']] },
  { name: 'Einsum', build: einsums, targets: [['q'], ['o'], ['p'], ['q', 'o', 'p']] },
  { name: 'chain of Casts and Reshapes', build: chain, targets: [['fc']] },
];

const METHODS: readonly (readonly [method: string, config: Readonly<Record<string, unknown>>])[] = [
  ['lora', { rank: 2, alpha: 3 }],
  ['ia3', { feedforward: [] }],
  ['ia3', { feedforward: '.*' }],
  ['full', {}],
  ['hiwi', { rank: 2, on: 'weight' }],
  ['pafi', { ratio: 0.6, scope: 'tensor', biases: true }],
];

describe.each(CASES)('$name', ({ name, build, targets }) => {
  const cases = METHODS.flatMap(([method, config]) =>
    targets.map(
      (list) => [`${method} ${JSON.stringify(config)} at ${list.join(', ')}`, method, config, list] as const,
    ),
  );
  test.each(cases)('%s', async (_name, method, config, list) => {
    const base = build();
    const inserted = build();
    const { record, base: weights } = await insert(inserted, {
      method,
      config,
      targeting: { targets: [...list] },
      run: { validate: 'edit' },
    });
    expect(record.sites).toHaveLength(list.length);
    // Weights in nodes count as the others do.
    expect(weights).toBeGreaterThan(0);
    const identity = await verify(base, inserted);
    expect(identity.worst.relative).toBeLessThanOrEqual(identity.tolerance);

    const tensors = randomParameters(record, inserted);
    const initial = new Map([...inserted.graph.initializers].map((value) => [value.name, value.tensor]));
    // Each site on its own has to show in the output: none may be wired beside the graph.
    for (const site of record.sites) {
      const own = new Set(Object.values(site.params).map(({ key }) => key));
      const alone = new Map(
        allParams(record).map(({ key, name }) => [
          key,
          (own.has(key) ? tensors.get(key) : initial.get(name)) as Tensor,
        ]),
      );
      const model = cloneModel(base).model;
      attachAdapter(model, record, alone);
      expect((await verify(base, model)).worst.relative).toBeGreaterThan(1e-4);
    }

    const adapter = join(folder, `${name}-${list.join('-')}.safetensors`);
    await writeAdapter(adapter, record, tensors, { force: true });
    const report = await fold({
      model: base,
      adapter,
      out: join(folder, `${name}.onnx`),
      force: true,
      verify: true,
    });
    expect(report.impossible).toEqual([]);
    expect(report.copies).toEqual([]);
    expect(report.verification?.worst.relative).toBeLessThanOrEqual(report.verification?.tolerance ?? 0);
  });
});
