import { describe, expect, it } from 'vitest';
import { parseModel } from '../../src/text/index.js';
import { definedValues, findNode, findValue, nodesAfter, nodesBefore } from '../../src/walk.js';

const { graph } = parseModel(`g (float[2] x, bool c) => (float[2] y, float[2] z) <float[2] w = {1, 2}> {
  [a] h = Add(x, w)
  [b] k = Neg(x)
  [if] y = If(c) <then_branch = t () => (p) { [in] p = Neg(h) }, else_branch = e () => (q) { q = Abs(w) }>
  [d] z = Mul(k, k)
}`);
const names = (nodes: readonly { readonly name: string | undefined }[]): (string | undefined)[] =>
  nodes.map((n) => n.name);

describe('walking a graph', () => {
  it('finds nodes and values by name, in bodies too, and suggests the nearest', () => {
    expect(findNode(graph, 'in').op).toBe('Neg');
    expect(findValue(graph, 'p').producer?.name).toBe('in');
    expect(findValue(graph, 'w').tensor?.dims).toEqual([2]);
    expect(findValue(graph, 'y')).toBe(graph.outputs[0]?.value);
    expect(() => findNode(graph, 'iff')).toThrow(/no node 'iff'.*Did you mean 'if'/);
    expect(() => findValue(graph, 'hh')).toThrow(/no value 'hh'.*'h'/);
  });

  it('follows edges through captures, in graph order', () => {
    expect(names(nodesBefore(graph, [findValue(graph, 'y')]))).toEqual(['a', 'if']);
    expect(names(nodesBefore(graph, [findValue(graph, 'z')]))).toEqual(['b', 'd']);
    expect(names(nodesAfter(graph, [findValue(graph, 'h')]))).toEqual(['if']);
    expect(names(nodesAfter(graph, [findValue(graph, 'x')]))).toEqual(['a', 'b', 'if', 'd']);
    expect([...definedValues(graph)].map((v) => v.label)).toEqual(['x', 'c', 'w', 'h', 'k', 'y', 'z']);
  });
});
