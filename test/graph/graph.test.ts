import { describe, expect, it } from 'vitest';
import { applyEdit } from '../../passes/edit.js';
import { Cloner, cloneModel } from '../../src/clone.js';
import { Graph, Node, redirectUses, Value } from '../../src/graph.js';
import { tensorOf } from '../../src/literals.js';
import { dependencies, isSorted, sortTopologically, topologicalOrder } from '../../src/order.js';
import { parseModel, printModel } from '../../src/text/index.js';

const nodeOf = (graph: Graph, name: string): Node => {
  for (const node of graph.nodes()) if (node.name === name) return node;
  throw new Error(`no node ${name}`);
};

const branchy = `<ir_version: 8, opset_import: ["": 17]>
g (float[2] x, bool c, int64 n) => (float[2] y, float[2] z) <float[2] tied = {1, 2}> {
  [a] h = Add(x, tied)
  [b] k = Mul(h, tied)
  [if] y = If(c) <
    then_branch = t () => (p) { [t1] p = Neg(h) },
    else_branch = e () => (k) { }
  >
  [loop] z = Loop(n, c, k) <
    body = l (int64 i, bool go, float[2] s) => (bool go2, float[2] s2) {
      [l1] go2 = Identity(go)
      [l2] s2 = Add(s, h)
    }
  >
}`;

describe('uses', () => {
  it('count captures of If and Loop bodies, and outputs of bodies', () => {
    const { graph } = parseModel(branchy);
    const h = nodeOf(graph, 'a').output();
    expect([...h.users].map((n) => n.name).sort()).toEqual(['b', 'l2', 't1']);
    const k = nodeOf(graph, 'b').output();
    // The Loop reads k, and the else branch returns it.
    expect([...k.uses].map((use) => use.kind).sort()).toEqual(['node', 'output']);
    expect([...dependencies(nodeOf(graph, 'if'))].map((n) => n.name)).toEqual(['a', 'b']);
  });

  it('of a tied initializer can be redirected one by one', () => {
    const { graph } = parseModel(branchy);
    const tied = [...graph.initializers][0];
    if (tied === undefined) throw new Error('no initializer');
    expect(tied.uses.size).toBe(2);
    const copy = graph.addInitializer(new Value({ hint: 'copy', tensor: tensorOf('float32', [2], [1, 2]) }));
    const add = nodeOf(graph, 'a');
    expect(redirectUses(tied, copy, (use) => use.kind === 'node' && use.node === add)).toBe(1);
    expect(tied.uses.size).toBe(1);
    expect(add.inputs[1]).toBe(copy);
    expect(nodeOf(graph, 'b').inputs[1]).toBe(tied);
  });

  it('do not count a detached node, so that y can be redirected to y + f(y)', () => {
    const { graph } = parseModel('g (float[2] x) => (float[2] y) { [m] y = Neg(x) }');
    const m = nodeOf(graph, 'm');
    const y = m.output();
    const f = new Node({ op: 'Tanh', inputs: [y], outputs: [new Value({ hint: 'f' })] });
    const sum = new Node({ op: 'Add', inputs: [y, f.output()], outputs: [new Value({ hint: 'sum' })] });
    expect(y.users.size).toBe(0);
    applyEdit({
      label: 'adapter',
      graph,
      add: { nodes: [f, sum], at: { after: m } },
      redirect: [{ from: y, to: sum.output() }],
    });
    expect(f.inputs[0]).toBe(y);
    expect(sum.inputs[0]).toBe(y);
    expect(graph.outputs[0]?.value).toBe(sum.output());
    expect(graph.outputs[0]?.name).toBe('y');
    expect(isSorted(graph)).toBe(true);
  });

  it('forbid removing a node that is read by a body', () => {
    const { graph } = parseModel(branchy);
    expect(() => graph.remove(nodeOf(graph, 'a'))).toThrow(/still has users of 'h'/);
    expect(() => new Graph().remove(nodeOf(graph, 'a'))).toThrow(/not in this graph/);
  });
});

describe('order', () => {
  it('moves nodes ahead of their readers only, with captures as reads', () => {
    const model = parseModel(`<ir_version: 8, opset_import: ["": 17]> g (float[2] x, bool c) => (float[2] y) {
      [first] u = Abs(x)
      [if] y = If(c) <then_branch = t () => (p) { p = Neg(late) }, else_branch = e () => (u) { }>
      [other] v = Abs(u)
      [late] late = Neg(v)
    }`);
    const { graph } = model;
    expect(isSorted(graph)).toBe(false);
    expect(topologicalOrder(graph).map((n) => n.name)).toEqual(['first', 'other', 'late', 'if']);
    expect(sortTopologically(graph)).toBe(true);
    expect([...graph.nodes()].map((n) => n.name)).toEqual(['first', 'other', 'late', 'if']);
    expect([...graph.nodesReversed()].map((n) => n.name)).toEqual(['if', 'late', 'other', 'first']);
    expect(graph.lastNode?.name).toBe('if');
    expect(sortTopologically(graph)).toBe(false);
    expect(nodeOf(graph, 'late').output().users.size).toBe(1);
  });

  it('sorts a long chain that is written backwards without running out of stack', () => {
    const graph = new Graph();
    let value = graph.addInput(new Value({ name: 'x' }));
    const nodes: Node[] = [];
    for (let i = 0; i < 20_000; i++) {
      const node = new Node({ op: 'Neg', inputs: [value], outputs: [new Value({ hint: 'v' })] });
      value = node.output();
      nodes.push(node);
    }
    for (const node of [...nodes].reverse()) graph.append(node);
    expect(sortTopologically(graph)).toBe(true);
    expect([...graph.nodes()].every((node, i) => node === nodes[i])).toBe(true);
  });

  it('names the nodes of a cycle', () => {
    const graph = new Graph();
    const a = new Node({ op: 'Neg', name: 'a', inputs: [null], outputs: [new Value()] });
    const b = new Node({ op: 'Abs', name: 'b', inputs: [a.output()], outputs: [new Value()] });
    graph.append(a);
    graph.append(b);
    a.setInput(0, b.output());
    expect(() => topologicalOrder(graph)).toThrow(/cycle: Neg 'a' needs Abs 'b' needs Neg 'a'/);
  });

  it('refuses an order that is none', () => {
    const { graph } = parseModel(branchy);
    const nodes = [...graph.nodes()];
    expect(() => graph.reorder(nodes.slice(1))).toThrow(/every node/);
    expect(() => graph.reorder([...nodes.slice(1), nodes[1] ?? nodeOf(graph, 'a')])).toThrow(/every node/);
  });
});

describe('clone', () => {
  it('copies captures onto copies and leaves the original untouched', () => {
    const model = parseModel(branchy);
    const before = printModel(model);
    const { model: copy, values, nodes } = cloneModel(model);
    const h = nodeOf(model.graph, 'a').output();
    expect([...(values.get(h)?.users ?? [])].map((n) => n.name).sort()).toEqual(['b', 'l2', 't1']);
    expect(nodes.get(nodeOf(model.graph, 'a'))).toBe(nodeOf(copy.graph, 'a'));
    copy.graph.clearOutputs();
    const loop = nodeOf(copy.graph, 'loop');
    for (const body of loop.subgraphs) for (const node of [...body.nodes()]) node.setInput(0, null);
    expect(printModel(model)).toBe(before);
  });

  it('copies a body within one model: outer values are read, inner ones are new', () => {
    const { graph } = parseModel(branchy);
    const body = nodeOf(graph, 'loop').subgraphs[0];
    if (body === undefined) throw new Error('no body');
    const copy = new Cloner().graph(body);
    const h = nodeOf(graph, 'a').output();
    expect(nodeOf(copy, 'l2').inputs[1]).toBe(h);
    expect(nodeOf(copy, 'l2').inputs[0]).not.toBe(nodeOf(body, 'l2').inputs[0]);
    const bound = new Cloner({ values: new Map([[h, graph.inputs[0] ?? h]]) }).graph(body);
    expect(nodeOf(bound, 'l2').inputs[1]).toBe(graph.inputs[0]);
  });
});
