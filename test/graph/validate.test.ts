import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { attr } from '../../src/attribute.js';
import { Graph, Node, Value } from '../../src/graph.js';
import { tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { parseModel } from '../../src/text/index.js';
import { tensorType } from '../../src/types.js';
import { assertValid, validateModel } from '../../src/validate.js';

const head = '<ir_version: 8, opset_import: ["": 17]>';
const good = (): Model =>
  parseModel(`${head} g (float[2,3] x, bool c) => (float[2,3] y) <float[2,3] W = {1, 2, 3, 4, 5, 6}> {
    [add] h = Add(x, W)
    [if] y = If(c) <then_branch = t () => (p) { [neg] p = Neg(h) }, else_branch = e () => (q) { [abs] q = Abs(h) }>
  }`);
const node = (model: Model, name: string, graph: Graph = model.graph): Node => {
  for (const n of graph.nodes()) {
    if (n.name === name) return n;
    for (const sub of n.subgraphs) for (const inner of sub.nodes()) if (inner.name === name) return inner;
  }
  throw new Error(name);
};
const weight = (model: Model): Value => {
  for (const value of model.graph.initializers) return value;
  throw new Error('no weight');
};

/** Each break with the rule that must find it and part of what it says. */
const breaks: [string, (model: Model) => void, string, RegExp][] = [
  [
    'detached producer',
    (m) =>
      node(m, 'add').setInput(
        0,
        new Node({ op: 'Neg', inputs: [], outputs: [new Value({ hint: 'd' })] }).output(),
      ),
    'structure',
    /of Neg '%d', which is not in the graph/,
  ],
  [
    'undefined value',
    (m) => node(m, 'neg').setInput(0, new Value({ hint: 'nowhere' })),
    'structure',
    /nothing in the model defines/,
  ],
  [
    'value of a sibling graph',
    (m) => node(m, 'abs').setInput(0, node(m, 'neg').output()),
    'structure',
    /belongs to graph 't' and is out of scope/,
  ],
  [
    'capture ahead of its producer',
    (m) => {
      const [add, branch] = [...m.graph.nodes()];
      if (add && branch) m.graph.reorder([branch, add]);
    },
    'order',
    /reads 'h', which is computed later/,
  ],
  ['value of two definitions', (m) => void m.graph.addInput(weight(m)), 'none', /./],
  [
    'node output as an input',
    (m) => void m.graph.addInput(node(m, 'add').output()),
    'structure',
    /also a graph input|claims to be computed/,
  ],
  [
    'shared output value',
    (m) =>
      void m.graph.append(
        new Node({ op: 'Abs', inputs: [m.graph.inputs[0] ?? null], outputs: [node(m, 'add').output()] }),
      ),
    'structure',
    /also an output of Add/,
  ],
  [
    'shared subgraph',
    (m) => {
      const branch = node(m, 'if');
      const body = branch.attributes.get('then_branch');
      if (body) branch.attributes.set('else_branch', body);
    },
    'structure',
    /held by two attributes/,
  ],
  [
    'use by a foreign graph',
    (m) => {
      new Graph().append(new Node({ op: 'Neg', inputs: [weight(m)], outputs: [new Value()] }));
    },
    'structure',
    /not part of the model/,
  ],
  ['uncounted use', (m) => node(m, 'add').output().uses.clear(), 'structure', /without being counted/],
  [
    'stale use',
    (m) => void weight(m).uses.add({ kind: 'node', node: node(m, 'neg'), index: 0 }),
    'structure',
    /counted as a use but reads something else/,
  ],
  [
    'payload too short',
    (m) => {
      weight(m).tensor = tensorOfBytes('float32', [2, 3], new Uint8Array(20));
    },
    'payload',
    /takes 24 bytes, the payload has 20/,
  ],
  [
    'payload of another dtype',
    (m) => {
      weight(m).tensor = tensorOf('int32', [2, 3], [1, 2, 3, 4, 5, 6]);
    },
    'payload',
    /declared as float32\[2, 3\] but its payload is int32/,
  ],
  ['missing opset', (m) => void m.opsets.clear(), 'schema', /No opset of domain 'ai.onnx'/],
  [
    'operator of a later opset',
    (m) =>
      void m.graph.append(
        new Node({ op: 'Gelu', inputs: [m.graph.inputs[0] ?? null], outputs: [new Value({ hint: 'g' })] }),
      ),
    'schema',
    /exists from opset 20 on/,
  ],
  [
    'unknown operator',
    (m) => void m.graph.append(new Node({ op: 'Adds', inputs: [], outputs: [new Value({ hint: 'g' })] })),
    'schema',
    /no operator Adds/,
  ],
  [
    'too few inputs',
    (m) =>
      void m.graph.append(new Node({ op: 'Add', inputs: [weight(m)], outputs: [new Value({ hint: 'g' })] })),
    'schema',
    /has 1 inputs, at least 2/,
  ],
  [
    'too many inputs',
    (m) =>
      void m.graph.append(
        new Node({ op: 'Neg', inputs: [weight(m), weight(m)], outputs: [new Value({ hint: 'g' })] }),
      ),
    'schema',
    /has 2 inputs, at most 1/,
  ],
  [
    'unknown attribute',
    (m) => void node(m, 'add').attributes.set('axes', attr.int(1)),
    'schema',
    /no attribute 'axes'/,
  ],
  [
    'attribute of another type',
    (m) =>
      void m.graph.append(
        new Node({
          op: 'Softmax',
          inputs: [weight(m)],
          outputs: [new Value({ hint: 'g' })],
          attributes: [['axis', attr.float(1)]],
        }),
      ),
    'schema',
    /is of type float, not int/,
  ],
  [
    'missing attribute',
    (m) =>
      void m.graph.append(new Node({ op: 'Cast', inputs: [weight(m)], outputs: [new Value({ hint: 'g' })] })),
    'schema',
    /required attribute 'to'/,
  ],
  [
    'dtype the operator lacks',
    (m) =>
      void m.graph.append(
        new Node({ op: 'Sqrt', inputs: [m.graph.inputs[1] ?? null], outputs: [new Value({ hint: 'g' })] }),
      ),
    'schema',
    /cannot be bool/,
  ],
  [
    'operands of two dtypes',
    (m) => {
      const other = m.graph.addInitializer(
        new Value({ hint: 'i', tensor: tensorOf('int64', [3], [1, 2, 3]), type: tensorType('int64', [3]) }),
      );
      node(m, 'add').setInput(1, other);
    },
    'schema',
    /is int64 but 'A' is float32/,
  ],
  [
    'stale type',
    (m) => {
      node(m, 'add').output().type = tensorType('float32', [2, 4]);
    },
    'types',
    /declared as float32\[2, 4\] but inferred as float32\[2, 3\]/,
  ],
];

describe('validateModel', () => {
  it('finds nothing wrong with a valid model', () => {
    expect(validateModel(good())).toEqual([]);
  });

  it.each(breaks)('%s', (_, damage, rule, pattern) => {
    const model = good();
    damage(model);
    const problems = validateModel(model);
    if (rule === 'none') return expect(problems).toEqual([]);
    const found = problems.filter((problem) => problem.rule === rule);
    expect(found.map((problem) => problem.message).join('\n')).toMatch(pattern);
    for (const problem of problems) expect(problem.remedy).not.toBe('');
    expect(() => assertValid(model, 'after the test')).toThrow(/after the test: /);
  });

  it('checks functions under their own opsets', () => {
    const model = parseModel(`<ir_version: 10, opset_import: ["": 20, "d": 1]>
      g (float[2] x) => (float[2] y) { y = d.f(x) }
      <domain: "d", opset_import: ["": 17]> f (a) => (b) { b = Gelu(a) }`);
    expect(validateModel(model).map((p) => [p.where, p.rule])).toEqual([
      ["function d.f: Gelu 'b'", 'schema'],
    ]);
  });

  const folder = join(import.meta.dirname, '../../fixtures/models');
  it.each(readdirSync(folder).filter((name) => name.endsWith('.onnx')))('holds for %s', (name) => {
    expect(validateModel(readModel(join(folder, name)))).toEqual([]);
  });
});
