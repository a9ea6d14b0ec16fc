/** Gradients that pass rounding straight through are those of the product with the weight that the integers stand for. */
import { describe, expect, it } from 'vitest';
import { applyEdit } from '../../passes/edit.js';
import { backward } from '../../passes/grad/backward.js';
import { Graph, Value } from '../../src/graph.js';
import { randomStream } from '../../src/initializer.js';
import { encodeNumbers } from '../../src/literals.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { type DType, tensorType } from '../../src/types.js';
import { numbers, runModel } from '../helpers/run.js';
import { float32 } from '../targets/driver.js';

const [ROWS, IN, OUT] = [3, 6, 4];
const random = randomStream(11, 'straight-through');
const x = Array.from({ length: 2 * ROWS * IN }, () => 2 * random() - 1);
const seed = Array.from({ length: 2 * ROWS * OUT }, () => 2 * random() - 1);
const codes = Array.from({ length: IN * OUT }, () => Math.floor(200 * random()) - 100);
const scales = Array.from({ length: OUT }, () => 0.005 + 0.01 * random());
const zeros = [3, -2, 0, 7];

interface Form {
  readonly name: string;
  readonly build: (b: Builder, x: Value) => Value;
  /** Weight [in, out] by which the cotangent goes back. */
  readonly weight: (i: number, o: number) => number;
}

function constant(b: Builder, dtype: DType, dims: readonly number[], values: readonly number[]): Value {
  return b.constant(tensorOfBytes(dtype, dims, encodeNumbers(dtype, values)));
}

const perChannel = (i: number, o: number) => ((codes[i * OUT + o] ?? 0) - (zeros[o] ?? 0)) * (scales[o] ?? 0);
const perTensor = (i: number, o: number) => ((codes[i * OUT + o] ?? 0) - 3) * 0.01;
const weightOf = (b: Builder) => constant(b, 'int8', [IN, OUT], codes);
const scalar = (b: Builder, value: number) => b.scalar(value, 'float32');
const microsoft = { domain: 'com.microsoft' } as const;

function dynamic(b: Builder, value: Value): readonly [Value, Value, Value] {
  const [code, scale, zero] = b.call('DynamicQuantizeLinear', [value], {}, { outputs: 3 });
  return [code as Value, scale as Value, zero as Value];
}

const FORMS: readonly Form[] = [
  {
    name: 'DynamicQuantizeLinear, MatMulInteger, Cast, Mul',
    weight: perChannel,
    build: (b, value) => {
      const [code, scale, zero] = dynamic(b, value);
      const product = b.op.MatMulInteger(code, weightOf(b), zero, constant(b, 'int8', [OUT], zeros));
      const factor = b.op.Mul(scale, constant(b, 'float32', [OUT], scales));
      return b.op.Mul(b.op.Cast(product, { to: 'float32' }), factor);
    },
  },
  {
    name: 'MatMulIntegerToFloat',
    weight: perTensor,
    build: (b, value) => {
      const [code, scale, zero] = dynamic(b, value);
      const inputs = [code, weightOf(b), scale, scalar(b, 0.01), zero, b.scalar(3, 'int8')];
      return b.call('MatMulIntegerToFloat', inputs, {}, microsoft)[0] as Value;
    },
  },
  {
    name: 'MatMulIntegerToFloat, scales per column around one zero point',
    weight: (i, o) => ((codes[i * OUT + o] ?? 0) - 3) * (scales[o] ?? 0),
    build: (b, value) => {
      const [code, scale, zero] = dynamic(b, value);
      const columns = constant(b, 'float32', [OUT], scales);
      const inputs = [code, weightOf(b), scale, columns, zero, b.scalar(3, 'int8')];
      return b.call('MatMulIntegerToFloat', inputs, {}, microsoft)[0] as Value;
    },
  },
  {
    name: 'MatMulIntegerToFloat, one scale with zero points per column',
    weight: (i, o) => ((codes[i * OUT + o] ?? 0) - (zeros[o] ?? 0)) * 0.01,
    build: (b, value) => {
      const [code, scale, zero] = dynamic(b, value);
      const columns = constant(b, 'int8', [OUT], zeros);
      const inputs = [code, weightOf(b), scale, scalar(b, 0.01), zero, columns];
      return b.call('MatMulIntegerToFloat', inputs, {}, microsoft)[0] as Value;
    },
  },
  {
    name: 'DynamicQuantizeMatMul',
    weight: perTensor,
    build: (b, value) => {
      const inputs = [value, weightOf(b), scalar(b, 0.01), b.scalar(3, 'int8')];
      return b.call('DynamicQuantizeMatMul', inputs, {}, microsoft)[0] as Value;
    },
  },
  {
    name: 'QuantizeLinear, QLinearMatMul, DequantizeLinear',
    weight: perTensor,
    build: (b, value) => {
      const zero = b.scalar(128, 'uint8');
      const code = b.op.QuantizeLinear(value, scalar(b, 0.01), zero);
      const product = b.op.QLinearMatMul(
        code,
        scalar(b, 0.01),
        zero,
        weightOf(b),
        scalar(b, 0.01),
        b.scalar(3, 'int8'),
        scalar(b, 0.05),
        zero,
      );
      return b.op.DequantizeLinear(product, scalar(b, 0.05), zero);
    },
  },
  {
    name: 'QuantizeLinear, DequantizeLinear, MatMul over DequantizeLinear',
    weight: perChannel,
    build: (b, value) => {
      const activation = (v: Value) =>
        b.op.DequantizeLinear(b.op.QuantizeLinear(v, scalar(b, 0.02)), scalar(b, 0.02));
      const weight = b.op.DequantizeLinear(
        weightOf(b),
        constant(b, 'float32', [OUT], scales),
        constant(b, 'int8', [OUT], zeros),
        { axis: 1 },
      );
      return b.op.MatMul(activation(value), weight);
    },
  },
  {
    name: 'integers that are moved before they are floats again',
    weight: perTensor,
    build: (b, value) => {
      const code = b.op.QuantizeLinear(value, scalar(b, 0.02));
      const there = b.op.Transpose(code, { perm: [1, 0, 2] });
      const back = b.op.Transpose(there, { perm: [1, 0, 2] });
      const weight = b.op.DequantizeLinear(weightOf(b), scalar(b, 0.01), b.scalar(3, 'int8'));
      return b.op.MatMul(b.op.DequantizeLinear(back, scalar(b, 0.02)), weight);
    },
  },
];

describe.each(FORMS)('$name', ({ build, weight }) => {
  it('sends the cotangent back by the weight', async () => {
    const model = new Model(new Graph());
    model.opsets.set('', 20);
    const input = model.graph.addInput(
      new Value({ name: 'x', type: tensorType('float32', ['b', ROWS, IN]) }),
    );
    const r = model.graph.addInput(new Value({ name: 'r', type: tensorType('float32', ['b', ROWS, OUT]) }));
    const b = new Builder(model);
    const y = build(b, input);
    applyEdit({
      label: 'forward',
      graph: model.graph,
      add: { nodes: b.nodes, at: 'end' },
      addInitializers: b.initializers,
    });
    const { edit, gradients } = backward(model, { loss: y, seed: r, wrt: [input] });
    applyEdit(edit);
    model.graph.addOutput('dx', gradients.get(input) as Value);
    const { dx } = await runModel(model, {
      x: float32(x, [2, ROWS, IN]),
      r: float32(seed, [2, ROWS, OUT]),
    });
    const expected = Array.from({ length: 2 * ROWS * IN }, (_, at) => {
      const [row, i] = [Math.floor(at / IN), at % IN];
      return Array.from({ length: OUT }, (_, o) => (seed[row * OUT + o] ?? 0) * weight(i, o)).reduce(
        (p, q) => p + q,
      );
    });
    const scale = Math.max(...expected.map(Math.abs));
    for (const [i, value] of numbers(dx).entries())
      expect(Math.abs(value - (expected[i] ?? 0)) / scale).toBeLessThan(1e-5);
  });
});

it('says where gradients end instead of dropping them', () => {
  const model = new Model(new Graph());
  model.opsets.set('', 20);
  const input = model.graph.addInput(new Value({ name: 'x', type: tensorType('float32', [ROWS, IN]) }));
  const b = new Builder(model);
  const code = b.op.QuantizeLinear(input, scalar(b, 0.02), b.scalar(128, 'uint8'));
  const parts = [code, scalar(b, 0.02), b.scalar(128, 'uint8')];
  const [sigmoid] = b.call(
    'QLinearSigmoid',
    [...parts, scalar(b, 0.004), b.scalar(0, 'uint8')],
    {},
    microsoft,
  );
  const y = b.op.Add(b.op.DequantizeLinear(sigmoid as Value, scalar(b, 0.004), b.scalar(0, 'uint8')), input);
  applyEdit({
    label: 'forward',
    graph: model.graph,
    add: { nodes: b.nodes, at: 'end' },
    addInitializers: b.initializers,
  });
  const loss = b.op.ReduceSum(y, null, { keepdims: 0 });
  applyEdit({ label: 'loss', graph: model.graph, add: { nodes: b.nodes.slice(-1), at: 'end' } });
  expect(() => backward(model, { loss, wrt: [input] })).toThrow(/QLinearSigmoid/);
});
