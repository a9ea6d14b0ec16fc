import { InferenceSession, Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { inlineFunctions, inlineFunctionsWhere } from '../../passes/normalize/inline-functions.js';
import { runPasses } from '../../passes/runner.js';
import { cloneModel } from '../../src/clone.js';
import { walkNodes } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { encodeModel } from '../../src/onnx/index.js';
import { parseModel, printModel } from '../../src/text/index.js';

const text = `<
  ir_version: 10,
  opset_import: ["": 18, "local": 1]
>
g (float[n,2] x, bool c) => (float[n,2] y, float[n,2] z, float[n,2] same)
<
  float[2] w = {0.5, -2}
>
{
  [first] y, kept = local.block <slope = 0.25> (x, w)
  [second] t, "" = local.block(y, w)
  z = If(c) <
    then_branch = yes () => (a) { [inner] a = local.pick:left(t, x) },
    else_branch = no () => (b) { b = local.pick:right(t, kept) }
  >
  [pass] same = local.through(x)
}
<domain: "local", opset_import: ["": 18, "local": 1]>
block <slope: float = 0.75> (u, scale, shift) => (v, h)
{
  h = LeakyRelu <alpha: float = @slope> (u)
  [clip] k = Clip(h, shift)
  v = local.scale(k, scale)
}
<domain: "local", opset_import: ["": 18]>
scale (u, s) => (v)
{
  one = Constant <value = float {1}> ()
  sum = ReduceSum <keepdims = 0> (s)
  positive = Greater(sum, one)
  v = If(positive) <
    then_branch = t () => (h) { h = Mul(u, s) },
    else_branch = e () => (h) { r = Neg(u) h = Sub(r, s) }
  >
}
<domain: "local", overload: "left", opset_import: ["": 18]>
pick (a, b) => (o) { o = Sub(a, b) }
<domain: "local", overload: "right", opset_import: ["": 18]>
pick (a, b) => (o) { o = Sub(b, a) }
<domain: "local", opset_import: ["": 18]>
through (a) => (b) { b = Identity(a) }
`;

async function outputs(model: Model, c: boolean): Promise<Record<string, number[]>> {
  const session = await InferenceSession.create(encodeModel(model), { logSeverityLevel: 3 });
  const x = new Tensor('float32', Float32Array.from([1, -2, 3.5, -0.25, 0.125, 4]), [3, 2]);
  const results = await session.run({ x, c: new Tensor('bool', [c], []) });
  const rows: Record<string, number[]> = {};
  for (const [name, tensor] of Object.entries(results)) rows[name] = Array.from(tensor.data as Float32Array);
  await session.release();
  return rows;
}

describe('inline-functions', () => {
  it.each([true, false])('computes what ONNX Runtime computes with functions (c = %s)', async (c) => {
    const model = parseModel(text);
    const inlined = cloneModel(model).model;
    const { log } = runPasses(inlined, [inlineFunctions], { validate: 'edit' });
    expect(log.map((entry) => entry.label)).toEqual([
      "inline local.block at local.block 'first'",
      "inline local.scale at local.scale 'y'",
      "inline local.block at local.block 'second'",
      "inline local.scale at local.scale 't'",
      "inline local.through at local.through 'pass'",
      "inline local.pick at local.pick 'inner'",
      "inline local.pick at local.pick 'b'",
    ]);
    expect(inlined.functions).toEqual([]);
    expect([...walkNodes(inlined.graph)].every((node) => node.domain === '')).toBe(true);
    expect(inlined.graph.outputs.map((o) => o.name)).toEqual(['y', 'z', 'same']);
    const expected = await outputs(model, c);
    expect(await outputs(inlined, c)).toEqual(expected);
    expect(new Set(Object.values(expected).flat()).size).toBeGreaterThan(6);
  });

  it('takes attributes from the call, else from the defaults, and leaves out absent inputs', () => {
    const model = parseModel(text);
    expect(printModel(parseModel(printModel(model)))).toBe(printModel(model));
    runPasses(model, [inlineFunctions]);
    const nodes = [...model.graph.nodes()];
    const slopes = nodes.filter((n) => n.op === 'LeakyRelu').map((n) => n.attributes.get('alpha'));
    expect(slopes).toEqual([
      { type: 'float', value: 0.25 },
      { type: 'float', value: 0.75 },
    ]);
    const clips = nodes.filter((n) => n.op === 'Clip');
    expect(clips.map((n) => n.inputs[1])).toEqual([null, null]);
    expect(clips.map((n) => n.name)).toEqual(['first/clip', 'second/clip']);
  });

  it('reads the operand where a function returns its input', () => {
    const model =
      parseModel(`<ir_version: 10, opset_import: ["": 18, "d": 1]> g (float[2] x) => (float[2] y, float[2] z) {
        y, z = d.f(x)
      }
      <domain: "d", opset_import: ["": 18]> f (a) => (a, b) { b = Neg(a) }`);
    runPasses(model, [inlineFunctions], { validate: 'edit' });
    expect(model.graph.outputs.map((o) => [o.name, o.value === model.graph.inputs[0]])).toEqual([
      ['y', true],
      ['z', false],
    ]);
    expect(printModel(model)).toContain('y = Identity(x)');
  });

  it('keeps functions that are still called', () => {
    const model = parseModel(text);
    runPasses(model, [inlineFunctionsWhere((fn) => fn.name === 'block')], { validate: 'edit' });
    expect(model.functions.map((fn) => `${fn.name}:${fn.overload}`)).toEqual([
      'scale:',
      'pick:left',
      'pick:right',
      'through:',
    ]);
  });

  it('refuses recursion and operators whose form changed between opsets', () => {
    const recursive =
      parseModel(`<ir_version: 10, opset_import: ["": 18, "d": 1]> g (float[2] x) => (float[2] y) { y = d.f(x) }
      <domain: "d", opset_import: ["": 18, "d": 1]> f (a) => (b) { b = d.h(a) }
      <domain: "d", opset_import: ["": 18, "d": 1]> h (a) => (b) { b = d.f(a) }`);
    expect(() => runPasses(recursive, [inlineFunctions], { validate: 'off' })).toThrow(/d\.f calls itself/);
    const call = (body: string): Model =>
      parseModel(`<ir_version: 10, opset_import: ["": 18, "d": 1]> g (float[2] x) => (float[2] y) { y = d.f(x) }
        <domain: "d", opset_import: ["": 11]> f (a) => (b) { ${body} }`);
    expect(() => runPasses(call('b = Squeeze <axes = [0]> (a)'), [inlineFunctions])).toThrow(
      /Squeeze of opset 11, and its form differs at opset 18/,
    );
    const same = call('b = Acos(a)');
    runPasses(same, [inlineFunctions]);
    expect([...same.graph.nodes()].map((n) => n.op)).toEqual(['Acos']);
  });
});
