/** The structure proof against merged files that changed in one thing too many. */
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { proveFold } from '../../runtime/fold/proof.js';
import { type Attribute, attr } from '../../src/attribute.js';
import { cloneModel } from '../../src/clone.js';
import { Graph, type Node, Value, walkGraphs, walkNodes } from '../../src/graph.js';
import { initTensor, normal } from '../../src/initializer.js';
import { Model } from '../../src/model.js';
import { decodeModel, encodeModel, readModel, writeModel } from '../../src/onnx/index.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { parseModel } from '../../src/text/index.js';
import { scratch } from '../onnx/support.js';

const BASE = `<ir_version: 8, opset_import: ["": 17, "local": 1, "my": 1]>
g (float[2,4] x, bool c) => (float[2,4] y)
<
  float[4,4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
  float[4] b = {1, 2, 3, 4},
  int64[2] sizes = {2, 4},
  string[2] words = {"one", "two"}
>
{
  k = Constant <value = float[4] {1, 2, 3, 4}> ()
  [projection] p = MatMul(x, w)
  u = my.op <table = float[4] {1, 2, 3, 4}, tables: tensors = [float[2] {1, 2}, float[2] {3, 4}]> (p, words)
  t = If(c) <
    then_branch = g1 () => (float[2,4] o1) <float[2,4] q = {1, 2, 3, 4, 5, 6, 7, 8}> { o1 = Add(u, q) },
    else_branch = g2 () => (float[2,4] o2) <float[2,4] q = {1, 2, 3, 4, 5, 6, 7, 8}, float[4] w = {1, 2, 3, 4}> {
      o3 = Add(u, q)
      o2 = Add(o3, w)
    }
  >
  s = Add(t, b)
  r = Reshape(s, sizes)
  f = local.f(r)
  y = Add(f, k)
}
<domain: "local", opset_import: ["": 17]>
f (a) => (r) {
  v = Constant <value = float[4] {1, 2, 3, 4}> ()
  r = Add(a, v)
}
`;

/** The third number of a tensor, moved. */
function poked(tensor: Tensor): Tensor {
  const bytes = Uint8Array.from(tensor.data.read(0, tensor.data.byteLength));
  const at = bytes.length / 2;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return tensorOfBytes(tensor.dtype, tensor.dims, bytes);
}

const nodeOf = (model: Model, output: string): Node => {
  for (const node of [model.graph, ...model.functions.map(({ graph }) => graph)].flatMap((g) => [
    ...walkNodes(g),
  ]))
    if (node.outputs[0]?.name === output) return node;
  throw new Error(`no node computes ${output}`);
};

const graphOf = (model: Model, name: string): Graph => {
  const graph = [...walkGraphs(model.graph)].find((g) => g.name === name);
  if (graph === undefined) throw new Error(`no graph ${name}`);
  return graph;
};

const pokeInitializer = (graph: Graph, name: string): void => {
  for (const value of graph.initializers)
    if (value.name === name && value.tensor !== undefined) value.tensor = poked(value.tensor);
};

const pokeAttribute = (node: Node, name: string): void => {
  const attribute = node.attributes.get(name) as Attribute;
  if (attribute.type === 'tensor') node.attributes.set(name, { ...attribute, value: poked(attribute.value) });
  if (attribute.type === 'tensors')
    node.attributes.set(name, { ...attribute, value: attribute.value.map(poked) });
};

const CHEATS: readonly (readonly [string, (model: Model) => void])[] = [
  ['an untouched weight', (m) => pokeInitializer(m.graph, 'b')],
  ['an integer tensor', (m) => pokeInitializer(m.graph, 'sizes')],
  [
    'a string tensor',
    (m) => {
      for (const value of m.graph.initializers)
        if (value.name === 'words' && value.tensor !== undefined)
          value.tensor = { ...value.tensor, strings: [Buffer.from('one'), Buffer.from('six')] };
    },
  ],
  [
    'a weight of the first branch that has a namesake in the second',
    (m) => pokeInitializer(graphOf(m, 'g1'), 'q'),
  ],
  ['a weight of the second branch', (m) => pokeInitializer(graphOf(m, 'g2'), 'q')],
  ['a namesake of the folded weight', (m) => pokeInitializer(graphOf(m, 'g2'), 'w')],
  ['numbers of a Constant node', (m) => pokeAttribute(nodeOf(m, 'k'), 'value')],
  ['numbers in a function', (m) => pokeAttribute(nodeOf(m, 'v'), 'value')],
  ['a tensor attribute', (m) => pokeAttribute(nodeOf(m, 'u'), 'table')],
  ['a list of tensors', (m) => pokeAttribute(nodeOf(m, 'u'), 'tables')],
  ['an attribute', (m) => void nodeOf(m, 'r').attributes.set('allowzero', attr.int(1))],
  [
    'the name of a node',
    (m) => {
      nodeOf(m, 'p').name = 'other';
    },
  ],
  ['metadata of a node', (m) => void nodeOf(m, 'p').metadata.set('module', 'other')],
  ['an opset', (m) => void m.opsets.set('', 18)],
];

/** Base and a copy, both as decoded from a file, and the folded weight of the base. */
function pair() {
  const bytes = encodeModel(parseModel(BASE));
  const base = decodeModel(bytes);
  const merged = cloneModel(decodeModel(bytes)).model;
  const planned = new Set([...base.graph.initializers].filter(({ name }) => name === 'w'));
  return { base, merged, planned };
}

describe('the proof of a fold', () => {
  test('holds where only the planned tensor changed', () => {
    const { base, merged, planned } = pair();
    pokeInitializer(merged.graph, 'w');
    const proof = proveFold(base, decodeModel(encodeModel(merged)), planned);
    expect(proof).toMatchObject({ holds: true, differences: [], untouched: 11 });
  });

  test.each(CHEATS)('does not hold when the fold changed %s', (_what, cheat) => {
    const { base, merged, planned } = pair();
    cheat(merged);
    expect(proveFold(base, decodeModel(encodeModel(merged)), planned).holds).toBe(false);
  });
});

describe('weights in a file that base and merged model share', () => {
  const folder = scratch();
  const path = join(folder, 'base.onnx');
  const read = (): Model => readModel(path);
  const initializer = (model: Model, name: string): Value => {
    for (const value of model.graph.initializers) if (value.name === name) return value;
    throw new Error(`no initializer ${name}`);
  };

  beforeAll(async () => {
    const random = (key: string): Tensor => initTensor(normal(1), 'float32', [64, 64], 1, key);
    const graph = new Graph();
    for (const name of ['a', 'b']) graph.addInitializer(new Value({ name, tensor: random(name) }));
    await writeModel(new Model(graph), path, { externalData: 'file' });
  });

  test('are equal where they are the same bytes of it', () => {
    expect(proveFold(read(), read(), new Set())).toMatchObject({ holds: true, untouched: 2 });
  });

  test('are compared where they stand elsewhere in it', () => {
    const merged = read();
    const [a, b] = [initializer(merged, 'a'), initializer(merged, 'b')];
    [a.tensor, b.tensor] = [b.tensor, a.tensor];
    expect(proveFold(read(), merged, new Set())).toMatchObject({
      holds: false,
      differences: [expect.stringContaining("tensor 'a'"), expect.stringContaining("tensor 'b'")],
    });
  });
});
