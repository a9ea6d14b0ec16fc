import { describe, expect, it } from 'vitest';
import { attr } from '../../src/attribute.js';
import { PeftCompileError } from '../../src/errors.js';
import { Graph, Node, Value } from '../../src/graph.js';
import { tensorOf } from '../../src/literals.js';
import { Model } from '../../src/model.js';
import { parseModel, printModel } from '../../src/text/index.js';
import { tensorType } from '../../src/types.js';

const text = `<
  ir_version: 10,
  opset_import: ["": 18, "com.microsoft": 1],
  producer_name: "test",
  metadata_props: ["k\\"ey": "v"]
>
"torch-jit/1" (float[batch,"2*s"] x, bool cond, float[2] d = {1, 2.5}) => (float[batch,"2*s"] y, float[] "/z")
<
  float[2] "model.0::bias" = {0.1, -0},
  int64[1] axes = {-1}
>
{
  ["/Gemm"] h = Gemm <alpha = 0.5, transB = 1> (x, x, "model.0::bias")
  "/z", "" = com.microsoft.Fused:v1 <mode = "a\\\\b", sizes: ints = []> (h, "", axes)
  #@ {"graphNames":{"else_branch":["torch-jit-export1"]}}
  y = If(cond) <
    then_branch = then_body () => (a)
    {
      a = Add(x, h)
    },
    else_branch = torch_jit_export1 () => (b)
    {
      b = local.f <slope = 2.0> (d)
    }
  >
}
<
  domain: "local",
  opset_import: ["": 18]
>
f <slope> (u) => (v)
{
  v = LeakyRelu <alpha: float = @slope> (u)
}
`;

function expectError(source: string, pattern: RegExp): void {
  try {
    parseModel(source, { file: 'm.txt' });
  } catch (error) {
    expect(error).toBeInstanceOf(PeftCompileError);
    expect(error).toMatchObject({ code: 'E_PARSE' });
    expect(String(error)).toMatch(pattern);
    return;
  }
  expect.unreachable('the text must not parse');
}

describe('printModel and parseModel', () => {
  it('keep names, order, attributes, captures and functions', () => {
    const model = parseModel(text);
    expect(printModel(model)).toBe(text);
    const branch = [...model.graph.nodes()].at(-1);
    const body = branch?.subgraphs[0];
    expect(branch?.subgraphs[1]?.name).toBe('torch-jit-export1');
    // The body reads the outer x itself, not a copy of the same name.
    expect(body?.firstNode?.inputs[0]).toBe(model.graph.inputs[0]);
    expect(model.graph.inputs[0]?.users.size).toBe(2);
    expect(branch?.attributes.get('then_branch')?.type).toBe('graph');
    expect(model.functions[0]?.graph.firstNode?.attributes.get('alpha')).toEqual({
      type: 'ref',
      value: 'slope',
      attrType: 1,
    });
  });

  it('reads nodes that stand ahead of the producers of their inputs', () => {
    const model = parseModel(`<ir_version: 8, opset_import: ["": 17]> g (float x, bool c) => (float y) {
      y = If(c) <then_branch = t () => (a) { a = Neg(late) }, else_branch = e () => (late) { }>
      late = Abs(x)
    }`);
    const late = model.graph.lastNode?.output();
    expect(late?.uses.size).toBe(2);
  });

  it('puts types and provenance in comments', () => {
    const graph = new Graph();
    graph.name = 'g';
    const x = graph.addInput(new Value({ name: 'x', type: tensorType('float32', ['n', null]) }));
    const y = new Value({ hint: 'y', type: tensorType('float32', ['n', null]) });
    const node = new Node({ op: 'Neg', inputs: [x], outputs: [y] });
    node.provenance = 'lora';
    graph.append(node);
    graph.addOutput('y', y);
    const model = new Model(graph);
    model.opsets.set('', 18);
    expect(printModel(model, { types: true, provenance: true })).toContain(
      'y = Neg(x)  # float[n,?]; by lora\n',
    );
    // Comments are no part of the model.
    expect(printModel(parseModel(printModel(model, { types: true, provenance: true })))).toBe(
      printModel(model),
    );
  });

  it('prints structure without the numbers of weights, and nothing else less', () => {
    const make = (weight: number[], axis: number, scale: number): Model => {
      const graph = new Graph();
      graph.name = 'g';
      const w = graph.addInitializer(new Value({ name: 'w', tensor: tensorOf('float32', [2], weight) }));
      const axes = graph.addInitializer(new Value({ name: 'axes', tensor: tensorOf('int64', [1], [axis]) }));
      const y = new Value({ name: 'y' });
      graph.append(
        new Node({ op: 'Foo', inputs: [w, axes], outputs: [y], attributes: [['s', attr.float(scale)]] }),
      );
      graph.addOutput('y', y);
      return new Model(graph);
    };
    const structure = (model: Model): string => printModel(model, { structureOnly: true });
    const base = structure(make([1, 2], 0, 0.5));
    expect(structure(make([3, 4], 0, 0.5))).toBe(base);
    expect(structure(make([1, 2], 1, 0.5))).not.toBe(base);
    expect(structure(make([1, 2], 0, 0.25))).not.toBe(base);
    expect(structure(make([1, 2, 3], 0, 0.5))).not.toBe(base);
    const exact = (model: Model): string => printModel(model, { payload: (value) => value.name !== 'w' });
    expect(exact(make([3, 4], 0, 0.5))).toBe(exact(make([1, 2], 0, 0.5)));
  });

  it('treats weights in Constant nodes as weights, and single numbers as structure', () => {
    const make = (weight: string, eps: string): Model =>
      parseModel(`g () => (float[2] y) {
        w = Constant <value = float[2] {${weight}}> ()
        e = Constant <value = float {${eps}}> ()
        y = Add(w, e)
      }`);
    const base = printModel(make('1, 2', '0.5'), { structureOnly: true });
    expect(printModel(make('3, 4', '0.5'), { structureOnly: true })).toBe(base);
    expect(printModel(make('1, 2', '0.25'), { structureOnly: true })).not.toBe(base);
    const payload = (value: Value): boolean => value.name === 'e';
    expect(printModel(make('3, 4', '0.5'), { payload })).toBe(printModel(make('1, 2', '0.5'), { payload }));
    expect(printModel(make('3, 4', '0.5'))).not.toBe(printModel(make('1, 2', '0.5')));
  });

  it('declares weights that are not printed and refuses to read them back', () => {
    const graph = new Graph();
    graph.name = 'g';
    const w = graph.addInitializer(
      new Value({
        name: 'w',
        tensor: tensorOf(
          'float32',
          [32],
          Array.from({ length: 32 }, (_, i) => i / 7),
        ),
      }),
    );
    graph.addOutput('o', w);
    const parsed = parseModel(printModel(new Model(graph)));
    const [tensor] = [...parsed.graph.initializers].map((v) => v.tensor);
    expect(tensor?.data.byteLength).toBe(128);
    expect(() => tensor?.data.read(0, 4)).toThrow(/not part of the text/);
  });
});

describe('parse errors', () => {
  it.each([
    ['g (float x) => (float y) { y = Add(x, z) }', /'z' is read but defined nowhere/],
    ['g (float x) => (float y) { y = Neg(x) y = Neg(x) }', /'y' is defined twice.*m\.txt:1:50/],
    ['g (float x) => (float q) { y = Neg(x) }', /Output 'q' is not computed/],
    ['g (float x) => (float y) {\n  y = Neg <a = []> (x) }', /empty list needs the type.*m\.txt:2:/],
    ['g (float x) => (float y) { y = Neg <a = [1, "b"]> (x) }', /not all of one type/],
    ['g (float x) => (float y) { y = Neg <a: int = 1.5> (x) }', /of type float, not int/],
    ['g (float[2 x) => (float y) { }', /']' expected/],
    ['g (float x) => (float y) <int8[1] w = {300}> { y = Neg(x) }', /300 is no int8/],
    ['g (float x) => (float y) { y = "Neg(x) }', /string is not closed/],
    ['<ir_version: 8, bogus: 1> g (float x) => (float x) { }', /'bogus' is no header field/],
    ['#@ [1]\ng (float x) => (float x) { }', /must hold a JSON object/],
  ])('%s', (source, pattern) => expectError(source, pattern));
});
