import { describe, expect, it } from 'vitest';
import { Graph, Node, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { assignNames } from '../../src/names.js';
import { tensorOfBytes } from '../../src/tensor.js';

function relu(graph: Graph, x: Value, out: Value): Value {
  graph.append(new Node({ op: 'Relu', inputs: [x], outputs: [out] }));
  return out;
}

describe('assignNames', () => {
  it('gives a slot its public name and renames the value that had it', () => {
    const g = new Graph();
    const x = g.addInput(new Value({ name: 'x' }));
    const old = relu(g, x, new Value({ name: 'y' }));
    const made = relu(g, old, new Value({ hint: 'y' }));
    g.addOutput('y', made);
    const names = assignNames(new Model(g));
    expect([x, old, made].map(names.value)).toEqual(['x', 'y_1', 'y']);
    expect(names.aliases).toEqual([]);
  });

  it('reports slots that need an Identity', () => {
    const g = new Graph();
    const x = g.addInput(new Value({ name: 'x' }));
    const w = new Value({ name: 'w', tensor: tensorOfBytes('float32', [1], new Uint8Array(4)) });
    g.addInitializer(w);
    const y = relu(g, x, new Value({ name: 'y' }));
    g.addOutput('a', y);
    g.addOutput('b', y);
    g.addOutput('c', x);
    g.addOutput('d', w);
    g.addOutput('w', w);
    const names = assignNames(new Model(g));
    expect(names.value(y)).toBe('a');
    expect(names.aliases.map((a) => [a.name, names.value(a.value)])).toEqual([
      ['b', 'a'],
      ['c', 'x'],
      ['d', 'w'],
    ]);
    expect(new Set(names.aliases.map((a) => a.nodeName)).size).toBe(3);
  });

  it('mints names free of collisions across nested graphs, and leaves sibling pins alone', () => {
    const g = new Graph();
    const cond = g.addInput(new Value({ name: 'cond' }));
    const x = g.addInput(new Value({ name: 't' }));
    const made = relu(g, x, new Value({ hint: 't' }));
    const branch = (op: string) => {
      const b = new Graph();
      const inner = new Value({ name: 't_1' });
      b.append(new Node({ op, inputs: [made], outputs: [inner] }));
      const extra = relu(b, inner, new Value({ hint: 't' }));
      b.addOutput(undefined, extra);
      return { b, inner, extra };
    };
    const then = branch('Neg');
    const other = branch('Abs');
    const out = new Value({ name: 'out' });
    g.append(
      new Node({
        op: 'If',
        inputs: [cond],
        outputs: [out],
        attributes: [
          ['then_branch', { type: 'graph', value: then.b }],
          ['else_branch', { type: 'graph', value: other.b }],
        ],
      }),
    );
    g.addOutput('out', out);
    const names = assignNames(new Model(g));
    expect(names.value(then.inner)).toBe('t_1');
    expect(names.value(other.inner)).toBe('t_1');
    const minted = [made, then.extra, other.extra].map(names.value);
    expect(minted).toEqual(['t_2', 't_3', 't_4']);
  });

  it('lets an inner pin hide an outer one only where the outer one is not read', () => {
    for (const reads of [false, true]) {
      const g = new Graph();
      const x = g.addInput(new Value({ name: 'x' }));
      const body = new Graph();
      const inner = body.addInput(new Value({ name: 'x' }));
      const sum = new Value({ name: 'sum' });
      body.append(new Node({ op: 'Add', inputs: [inner, reads ? x : inner], outputs: [sum] }));
      body.addOutput('sum', sum);
      const out = new Value({ name: 'out' });
      g.append(
        new Node({
          op: 'Loop',
          inputs: [x],
          outputs: [out],
          attributes: [['body', { type: 'graph', value: body }]],
        }),
      );
      g.addOutput('out', out);
      const names = assignNames(new Model(g));
      expect(names.value(x)).toBe('x');
      expect(names.value(inner)).toBe(reads ? 'x_1' : 'x');
    }
  });

  it('refuses an output and an input that are different values of one name', () => {
    const g = new Graph();
    const x = g.addInput(new Value({ name: 'x' }));
    g.addOutput('x', relu(g, x, new Value()));
    expect(() => assignNames(new Model(g))).toThrowError(/'x'/);
  });

  it('names nodes made by passes after their provenance', () => {
    const g = new Graph();
    const x = g.addInput(new Value({ name: 'x' }));
    const a = new Node({ op: 'Relu', inputs: [x], outputs: [new Value()] });
    a.provenance = 'lora';
    const b = new Node({ op: 'Relu', name: 'lora/Relu', inputs: [x], outputs: [new Value()] });
    g.append(a);
    g.append(b);
    const names = assignNames(new Model(g));
    expect([names.node(a), names.node(b)]).toEqual(['lora/Relu_1', 'lora/Relu']);
  });
});
