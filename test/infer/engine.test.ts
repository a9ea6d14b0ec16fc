/** Whole models: control flow, local functions, declared types, order. */
import { describe, expect, it } from 'vitest';
import { type Attribute, attr } from '../../src/attribute.js';
import { cloneModel } from '../../src/clone.js';
import { Graph, Node, Value } from '../../src/graph.js';
import { constantOf, inferModel, intsOf, symbolicIntsOf } from '../../src/infer/index.js';
import { decodeNumbers, tensorOf } from '../../src/literals.js';
import { Model } from '../../src/model.js';
import { type DType, formatType, type Shape, tensorType } from '../../src/types.js';

function modelOf(build: (graph: Graph) => void, opset = 17): Model {
  const graph = new Graph();
  const model = new Model(graph);
  model.opsets.set('', opset);
  build(graph);
  return model;
}

function input(graph: Graph, name: string, dtype: DType, shape: Shape): Value {
  return graph.addInput(new Value({ name, type: tensorType(dtype, shape) }));
}

function add(
  graph: Graph,
  op: string,
  inputs: readonly (Value | null)[],
  attributes: Readonly<Record<string, Attribute>> = {},
  outputs = 1,
  domain = '',
): Value[] {
  const results = Array.from({ length: outputs }, (_, i) => new Value({ hint: `${op}_${i}` }));
  graph.append(new Node({ op, domain, inputs, attributes: Object.entries(attributes), outputs: results }));
  return results;
}

function constant(graph: Graph, dtype: DType, dims: readonly number[], numbers: readonly number[]): Value {
  return graph.addInitializer(new Value({ hint: 'c', tensor: tensorOf(dtype, dims, numbers) }));
}

const typeOf = (value: Value | undefined) => formatType(value?.type);

describe('contents', () => {
  it('evaluates shape code on symbols and constants', () => {
    let parts: Value[] = [];
    inferModel(
      modelOf((g) => {
        const x = input(g, 'x', 'float32', ['batch', 'seq', 64]);
        const [shape] = add(g, 'Shape', [x]);
        const [first] = add(g, 'Gather', [shape!, constant(g, 'int64', [1], [0])]);
        const [second] = add(g, 'Slice', [
          shape!,
          constant(g, 'int64', [1], [1]),
          constant(g, 'int64', [1], [2]),
        ]);
        const [product] = add(g, 'Mul', [first!, second!]);
        const [target] = add(g, 'Concat', [product!, constant(g, 'int64', [1], [-1])], { axis: attr.int(0) });
        const [y] = add(g, 'Reshape', [x, target!]);
        const [size] = add(g, 'Size', [constant(g, 'float32', [3, 5], new Array(15).fill(0))]);
        parts = [target!, y!, size!];
      }),
    );
    expect(symbolicIntsOf(parts[0]!)).toEqual(['batch*seq', -1]);
    expect(intsOf(parts[0]!)).toBeUndefined();
    expect(typeOf(parts[1])).toBe('float32[batch*seq, 64]');
    expect(intsOf(parts[2]!)).toEqual([15n]);
    expect(decodeNumbers(constantOf(parts[2]!)!)).toEqual([15n]);
  });

  it('does not trust an initializer that callers may override', () => {
    const shape = new Value({
      name: 's',
      type: tensorType('int64', [2]),
      tensor: tensorOf('int64', [2], [2, 3]),
    });
    const build = (irVersion: number) => {
      let y: Value | undefined;
      const model = modelOf((g) => {
        g.addInput(shape);
        g.addInitializer(shape);
        [y] = add(g, 'Reshape', [input(g, 'x', 'float32', [6]), shape]);
      });
      model.irVersion = irVersion;
      inferModel(model);
      return typeOf(y);
    };
    expect(build(8)).toBe('float32[?, ?]');
    expect(build(3)).toBe('float32[2, 3]');
  });
});

describe('control flow', () => {
  it('merges the branches of If and reads captured values', () => {
    let results: Value[] = [];
    inferModel(
      modelOf((g) => {
        const condition = input(g, 'c', 'bool', []);
        const x = input(g, 'x', 'float32', ['n', 4]);
        const branch = (op: string, attributes: Readonly<Record<string, Attribute>> = {}) => {
          const body = new Graph();
          const [y] = add(body, op, [x], attributes);
          body.addOutput('y', y!);
          return { type: 'graph', value: body } as const;
        };
        const transpose = branch('Transpose');
        results = [
          ...add(g, 'If', [condition], { then_branch: branch('Relu'), else_branch: branch('Neg') }),
          ...add(g, 'If', [condition], { then_branch: branch('Relu'), else_branch: transpose }),
          ...add(g, 'If', [constant(g, 'bool', [], [1])], {
            then_branch: branch('Relu'),
            else_branch: branch('Flatten', { axis: attr.int(0) }),
          }),
          transpose.value.outputs[0]!.value,
        ];
      }),
    );
    expect(results.map(typeOf)).toEqual(['float32[n, 4]', 'float32[?, ?]', 'float32[n, 4]', 'float32[4, n]']);
  });

  it('gives up a dimension that a loop changes and stacks scan outputs', () => {
    let results: Value[] = [];
    inferModel(
      modelOf((g) => {
        const x = input(g, 'x', 'float32', ['n', 4]);
        const body = new Graph();
        body.addInput(new Value({ name: 'i' }));
        const keep = body.addInput(new Value({ name: 'keep' }));
        const grown = body.addInput(new Value({ name: 'grown' }));
        const fixed = body.addInput(new Value({ name: 'fixed' }));
        const [longer] = add(body, 'Concat', [grown, x], { axis: attr.int(0) });
        const [same] = add(body, 'Relu', [fixed]);
        const [sum] = add(body, 'ReduceSum', [fixed], { keepdims: attr.int(0) });
        body.addOutput('keep', keep);
        body.addOutput('longer', longer!);
        body.addOutput('same', same!);
        body.addOutput('sum', sum!);
        const trips = constant(g, 'int64', [], [5]);
        results = add(g, 'Loop', [trips, null, x, x], { body: { type: 'graph', value: body } }, 3);
      }),
    );
    expect(results.map(typeOf)).toEqual(['float32[?, 4]', 'float32[n, 4]', 'float32[5]']);
  });

  it('runs Scan over an axis', () => {
    let results: Value[] = [];
    inferModel(
      modelOf((g) => {
        const body = new Graph();
        const state = body.addInput(new Value({ name: 'state' }));
        const element = body.addInput(new Value({ name: 'element' }));
        const [next] = add(body, 'Add', [state, element]);
        body.addOutput('next', next!);
        body.addOutput('out', next!);
        results = add(
          g,
          'Scan',
          [input(g, 's', 'float32', ['n']), input(g, 'x', 'float32', ['n', 't'])],
          {
            body: { type: 'graph', value: body },
            num_scan_inputs: attr.int(1),
            scan_input_axes: attr.ints([1]),
          },
          2,
        );
      }),
    );
    expect(results.map(typeOf)).toEqual(['float32[n]', 'float32[t, n]']);
  });
});

describe('local functions', () => {
  it('are inferred per call, with the attributes of the caller', () => {
    const body = new Graph();
    const x = body.addInput(new Value({ name: 'x' }));
    const shape = body.addInput(new Value({ name: 'shape' }));
    const [moved] = add(body, 'Reshape', [x, shape]);
    const [y] = add(body, 'Softmax', [moved!]);
    const [out] = add(body, 'Concat', [y!, y!], { axis: { type: 'ref', value: 'axis', attrType: 2 } });
    body.addOutput('out', out!);
    let results: Value[] = [];
    const model = modelOf((g) => {
      const value = input(g, 'v', 'float32', ['n', 6]);
      const target = (numbers: readonly number[]) => constant(g, 'int64', [numbers.length], numbers);
      results = [
        ...add(g, 'Twice', [value, target([-1, 3])], { axis: attr.int(0) }, 1, 'local'),
        ...add(g, 'Twice', [value, target([0, 2, 3])], { axis: attr.int(2) }, 1, 'local'),
      ];
    });
    model.functions.push({
      domain: 'local',
      name: 'Twice',
      overload: '',
      graph: body,
      attributeNames: ['axis'],
      opsets: new Map([['', 17]]),
    });
    expect(inferModel(model)).toEqual([]);
    expect(results.map(typeOf)).toEqual(['float32[4*n, 3]', 'float32[n, 2, 6]']);
    // The two calls disagree on ranks inside the body.
    expect(typeOf(moved)).toBe('float32[…]');
  });
});

describe('declared types', () => {
  it('are kept where inference knows less, and reported where they contradict it', () => {
    const declared = tensorType('float32', ['rows', 8]);
    let values: Value[] = [];
    const model = modelOf((g) => {
      const x = input(g, 'x', 'float32', ['n', 4]);
      const [custom] = add(g, 'Custom', [x], {}, 1, 'my.domain');
      custom!.type = declared;
      const [wrong] = add(g, 'Relu', [x]);
      wrong!.type = tensorType('float32', ['n', 5]);
      wrong!.name = 'wrong';
      const [narrow] = add(g, 'Neg', [x]);
      narrow!.type = tensorType('float32', [2, 4]);
      const [unknown] = add(g, 'Custom', [x], {}, 1, 'my.domain');
      values = [custom!, wrong!, narrow!, unknown!];
    });
    const expected = ['float32[rows, 8]', 'float32[n, 4]', 'float32[2, 4]', '?'];
    for (let run = 0; run < 2; run++) {
      expect(inferModel(model)).toEqual([
        { where: 'wrong', message: "'wrong' is declared as float32[n, 5], but is float32[n, 4]" },
      ]);
      expect(values.map(typeOf)).toEqual(expected);
    }
    expect(values[0]!.type).toBe(declared);
  });

  it('follow an edit, because inferred types are no declarations', () => {
    let y: Value | undefined;
    const model = modelOf((g) => {
      [y] = add(g, 'Relu', [input(g, 'x', 'float32', ['n', 4])]);
    });
    inferModel(model);
    y!.producer!.setInput(0, new Value({ name: 'z', type: tensorType('float32', [3]) }));
    expect(inferModel(model)).toEqual([]);
    expect(typeOf(y)).toBe('float32[3]');
  });

  it('reports an ill-typed node and goes on', () => {
    let after: Value | undefined;
    const diagnostics = inferModel(
      modelOf((g) => {
        const a = input(g, 'a', 'float32', [2, 3]);
        add(g, 'MatMul', [a, input(g, 'b', 'float32', [4, 5])]);
        [after] = add(g, 'Relu', [a]);
      }),
    );
    expect(diagnostics).toHaveLength(1);
    expect(diagnostics[0]!.message).toMatch(/Inner dimensions 3 and 4 differ/);
    expect(typeOf(after)).toBe('float32[2, 3]');
  });
});

describe('order', () => {
  it('types nodes that stand before their producers', () => {
    let late: Value | undefined;
    inferModel(
      modelOf((g) => {
        const x = input(g, 'x', 'float32', ['n']);
        const middle = new Value({ hint: 'middle' });
        [late] = add(g, 'Relu', [middle]);
        g.append(new Node({ op: 'Neg', inputs: [x], outputs: [middle] }));
      }),
    );
    expect(typeOf(late)).toBe('float32[n]');
  });

  it('gives data-dependent dimensions the same symbols in every run', () => {
    const values: Value[] = [];
    const model = modelOf((g) => {
      const x = input(g, 'x', 'float32', ['n']);
      const [found] = add(g, 'NonZero', [x]);
      values.push(found!, ...add(g, 'Transpose', [found!]), ...add(g, 'NonZero', [x]));
    });
    for (let run = 0; run < 2; run++) {
      inferModel(model);
      expect(values.map(typeOf)).toEqual(['int64[1, _d0]', 'int64[_d0, 1]', 'int64[1, _d1]']);
    }
  });
});

describe('copies', () => {
  it('know that their types were inferred', () => {
    let y: Value | undefined;
    const model = modelOf((g) => {
      [y] = add(g, 'Relu', [input(g, 'x', 'float32', ['n', 4])]);
    });
    inferModel(model);
    const { model: copy, values } = cloneModel(model);
    const twin = values.get(y!)!;
    twin.producer!.setInput(0, new Value({ name: 'z', type: tensorType('float32', [3]) }));
    expect(inferModel(copy)).toEqual([]);
    expect(typeOf(twin)).toBe('float32[3]');
    expect(typeOf(y)).toBe('float32[n, 4]');
  });
});
