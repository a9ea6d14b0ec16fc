/** The driver: what it builds, what it leaves out, how it fails, and how long it takes. */

import ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { applyEdit } from '../../passes/edit.js';
import { backward } from '../../passes/grad/backward.js';
import { stopGradient } from '../../passes/grad/stop-gradient.js';
import { PeftCompileError } from '../../src/errors.js';
import { Graph, type Node, Value } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { parseModel } from '../../src/text/index.js';
import { type DType, type Shape, tensorType } from '../../src/types.js';
import { numbers, runModel } from '../helpers/run.js';

function setUp(inputs: Record<string, Shape>, dtype: DType = 'float32') {
  const model = new Model(new Graph());
  model.opsets.set('', 20);
  const values = Object.entries(inputs).map(([name, shape]) =>
    model.graph.addInput(new Value({ name, type: tensorType(dtype, shape) })),
  );
  return { model, b: new Builder(model), values };
}

function attach(model: Model, b: Builder): void {
  applyEdit({
    label: 'test',
    graph: model.graph,
    add: { nodes: b.nodes, at: 'end' },
    addInitializers: b.initializers,
  });
}

function total(b: Builder, value: Value): Value {
  return b.op.ReduceSum(value, null, { keepdims: 0 });
}

function ops(nodes: readonly Node[] | undefined): string[] {
  return (nodes ?? []).map((node) => node.op);
}

function errorOf(run: () => unknown): PeftCompileError {
  try {
    run();
  } catch (error) {
    if (error instanceof PeftCompileError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

describe('frozen weights', () => {
  it('get no gradient, no Transpose and no second consumer but the Gemm of dX', () => {
    const { model, b, values } = setUp({ x: ['batch', 'tokens', 8], A: [8, 2], B: [2, 8] });
    const [x, A, B] = values as [Value, Value, Value];
    const W1 = model.graph.addInput(new Value({ name: 'W1', type: tensorType('float32', [8, 8]) }));
    const W2 = model.graph.addInput(new Value({ name: 'W2', type: tensorType('float32', [8, 8]) }));
    const h = b.op.Add(b.op.MatMul(x, W1), b.op.Mul(b.op.MatMul(b.op.MatMul(x, A), B), 2));
    const loss = total(b, b.op.MatMul(b.op.Relu(h), W2));
    attach(model, b);
    const { edit } = backward(model, { loss, wrt: [A, B] });
    const nodes = edit.add?.nodes ?? [];
    expect(ops(nodes)).not.toContain('Transpose');
    // dX of W2, dB, d(xA), dA: nothing for W1, x or W2.
    expect(ops(nodes).filter((op) => op === 'Gemm')).toHaveLength(4);
    const readers = (value: Value) =>
      nodes.filter((node) => node.inputs.includes(value)).map((node) => node.op);
    expect(readers(W1)).toEqual([]);
    expect(readers(W2)).toEqual(['Gemm']);
    // The factor 2 rides on alpha of the Gemms.
    expect(ops(nodes).filter((op) => op === 'Mul')).toEqual([]);
  });

  it('of convolutions get no gradient either', () => {
    const { model, b, values } = setUp({ x: [1, 2, 5], s: [1] });
    const [x, s] = values as [Value, Value];
    const W = model.graph.addInput(new Value({ name: 'W', type: tensorType('float32', [3, 2, 3]) }));
    const loss = total(b, b.op.Conv(b.op.Mul(x, s), W, {}));
    attach(model, b);
    expect(ops(backward(model, { loss, wrt: [s] }).edit.add?.nodes)).not.toContain('Conv');
  });
});

describe('emitted operators', () => {
  it('accumulate by Add, never Sum', () => {
    const { model, b, values } = setUp({ x: [2, 3] });
    const x = values[0]!;
    const loss = total(b, b.op.Sum([b.op.Exp(x), b.op.Tanh(x), b.op.Mul(x, x)]));
    attach(model, b);
    const emitted = ops(backward(model, { loss, wrt: [x] }).edit.add?.nodes);
    expect(emitted.filter((op) => op === 'Add')).toHaveLength(2);
    expect(emitted).not.toContain('Sum');
  });

  it('do not shape activations through Shape when an input has the symbol', () => {
    const { model, b, values } = setUp({ x: ['batch', 'tokens', 8], A: [8, 8] });
    const [x, A] = values as [Value, Value];
    const loss = total(b, b.op.MatMul(b.op.Exp(b.op.MatMul(x, A)), A));
    attach(model, b);
    const { edit } = backward(model, { loss, wrt: [A] });
    const shaped = (edit.add?.nodes ?? [])
      .filter((node) => node.op === 'Shape')
      .map((node) => node.input(0).label);
    expect(new Set(shaped)).toEqual(new Set(shaped.length > 0 ? ['x'] : []));
  });
});

describe('gradients of intermediate values and shared values', () => {
  it('are sums over all uses', async () => {
    const { model, b, values } = setUp({ x: [3] }, 'float64');
    const x = values[0]!;
    const h = b.op.Exp(x);
    const loss = total(b, b.op.Sub(b.op.Mul(h, h), b.op.Mul(h, 3)));
    attach(model, b);
    const { edit, gradients } = backward(model, { loss, wrt: [x, h] });
    applyEdit(edit);
    model.graph.addOutput('dx', gradients.get(x)!);
    model.graph.addOutput('dh', gradients.get(h)!);
    const data = [-0.5, 0.2, 1.1];
    const result = await runModel(model, { x: new ort.Tensor('float64', Float64Array.from(data), [3]) });
    numbers(result.dh).forEach((v, i) => {
      expect(v).toBeCloseTo(2 * Math.exp(data[i]!) - 3, 12);
    });
    numbers(result.dx).forEach((v, i) => {
      expect(v).toBeCloseTo((2 * Math.exp(data[i]!) - 3) * Math.exp(data[i]!), 12);
    });
  });

  it('start from a seed', async () => {
    const { model, b, values } = setUp({ x: [2], seed: [2] }, 'float64');
    const [x, seed] = values as [Value, Value];
    const y = b.op.Mul(x, x);
    attach(model, b);
    const { edit, gradients } = backward(model, { loss: y, wrt: [x], seed });
    applyEdit(edit);
    model.graph.addOutput('dx', gradients.get(x)!);
    const vector = (...data: number[]) => new ort.Tensor('float64', Float64Array.from(data), [2]);
    const result = await runModel(model, { x: vector(2, 3), seed: vector(0.5, -1) });
    expect(numbers(result.dx)).toEqual([2, -6]);
  });
});

describe('stopGradient', () => {
  it('is a constant to differentiation', () => {
    const { model, b, values } = setUp({ x: [3] });
    const x = values[0]!;
    const loss = total(b, b.op.Div(x, stopGradient(b, b.op.ReduceL2(x, null, { keepdims: 1 }))));
    attach(model, b);
    const emitted = ops(backward(model, { loss, wrt: [x] }).edit.add?.nodes);
    expect(emitted).not.toContain('ReduceL2');
    expect(emitted.filter((op) => op === 'Div')).toHaveLength(1);
  });
});

describe('errors', () => {
  it('name the path to an operator without a rule', () => {
    const { model, b, values } = setUp({ A: [4, 4] });
    const A = values[0]!;
    const h = b.op.Exp(A);
    const loss = total(b, b.op.Tanh(b.op.Det(h)));
    attach(model, b);
    const error = errorOf(() => backward(model, { loss, wrt: [A] }));
    expect(error.code).toBe('E_NO_GRADIENT');
    expect(error.message).toMatch(
      /no gradient rule for Det .*A → Exp .* → Det .*✗ → Tanh .* → ReduceSum .* → loss/,
    );
    expect(error.remedy).toBeDefined();
  });

  it('point at control flow on the path, captured values included', () => {
    const model = parseModel(`<ir_version: 10, opset_import: ["": 20]>
      agraph (float[3] x, bool c) => (float loss) {
        h = Exp(x)
        y = If <then_branch = t () => (float[3] a) { a = Tanh(h) }, else_branch = e () => (float[3] d) { d = Neg(h) }> (c)
        loss = ReduceSum <keepdims = 0> (y)
      }`);
    inferModel(model);
    const { graph } = model;
    const error = errorOf(() => backward(model, { loss: graph.outputs[0]!.value, wrt: [graph.inputs[0]!] }));
    expect(error.code).toBe('E_NO_GRADIENT');
    expect(error.message).toMatch(/Control flow \(If\)/);
  });

  it('say when the loss does not depend on a trainable', () => {
    const { model, b, values } = setUp({ x: [2], z: [2] });
    const [x, z] = values as [Value, Value];
    const loss = total(b, b.op.Add(b.op.Exp(x), b.op.Cast(b.op.Greater(z, 0), { to: 'float32' })));
    attach(model, b);
    const error = errorOf(() => backward(model, { loss, wrt: [x, z] }));
    expect(error.message).toMatch(/does not depend on 'z'/);
    const { gradients } = backward(model, { loss, wrt: [x, z], unreachable: 'zeros' });
    expect(gradients.get(z)?.type).toEqual(tensorType('float32', [2]));
  });

  it('refuse a loss that is no scalar', () => {
    const { model, b, values } = setUp({ x: [2] });
    const y = b.op.Exp(values[0]!);
    attach(model, b);
    expect(errorOf(() => backward(model, { loss: y, wrt: values })).code).toBe('E_TYPE');
  });
});

describe('size of the result', () => {
  /** Backward nodes of a residual stack. */
  function emitted(layers: number): number {
    const { model, b, values } = setUp({ x: ['batch', 'tokens', 16], A: [16, 16] });
    let [h] = values as [Value, Value];
    for (let i = 0; i < layers; i++) h = b.op.Add(h, b.op.Tanh(b.op.Mul(b.op.MatMul(h, values[1]!), 0.1)));
    const loss = total(b, h);
    attach(model, b);
    return backward(model, { loss, wrt: [values[1]!] }).edit.add?.nodes.length ?? 0;
  }

  it('grows by the same number of nodes per layer', () => {
    const [one, two, many] = [emitted(10), emitted(20), emitted(400)];
    expect(many - two).toBe(38 * (two - one));
  });
});
