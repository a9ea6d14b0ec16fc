/** Every lowered form runs in ONNX Runtime and gives the numbers of a reference written here. */
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { Graph, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { encodeModel } from '../../src/onnx/index.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, tensorType } from '../../src/types.js';

interface Input {
  readonly dims: readonly number[];
  readonly data: Float32Array;
}

/** Numbers in [-2, 2) from a linear congruential generator. */
function random(dims: readonly number[], seed: number): Input {
  let state = seed;
  const data = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 30 - 2;
  });
  return { dims, data };
}

async function run(
  opset: number,
  inputs: readonly Input[],
  build: (b: Builder, ...values: Value[]) => Value | Value[],
): Promise<{
  outputs: { dims: readonly number[]; data: number[] }[];
  ops: string[];
  types: Value['type'][];
}> {
  const graph = new Graph();
  graph.name = 'g';
  const model = new Model(graph);
  model.irVersion = opset >= 23 ? 11 : 8;
  model.opsets.set('', opset);
  const values = inputs.map(({ dims }, i) =>
    graph.addInput(new Value({ name: `x${i}`, type: tensorType('float32', dims) })),
  );
  const b = new Builder(model);
  const built = build(b, ...values);
  const results = Array.isArray(built) ? built : [built];
  for (const value of b.initializers) graph.addInitializer(value);
  for (const node of b.nodes) graph.append(node);
  for (const [i, value] of results.entries()) graph.addOutput(`y${i}`, value);
  const session = await ort.InferenceSession.create(encodeModel(model), { logSeverityLevel: 3 });
  const feeds = Object.fromEntries(
    inputs.map(({ dims, data }, i) => [`x${i}`, new ort.Tensor('float32', data, [...dims])]),
  );
  const found = await session.run(feeds);
  return {
    outputs: results.map((_, i) => {
      const tensor = found[`y${i}`]!;
      return { dims: tensor.dims, data: Array.from(tensor.data as Float32Array, Number) };
    }),
    ops: b.nodes.map((node) => node.op),
    types: results.map((value) => value.type),
  };
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
/** Abramowitz–Stegun 7.1.26, error below 1.5e-7. */
function erf(x: number): number {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const y =
    1 -
    ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) *
      t *
      Math.exp(-x * x);
  return Math.sign(x) * y;
}

const x = random([2, 3, 4], 7);
const map = (f: (v: number) => number) => Array.from(x.data, f);
/** Rows of the last axis. */
const rows = (input: Input): number[][] => {
  const width = input.dims.at(-1)!;
  return Array.from({ length: input.data.length / width }, (_, i) =>
    Array.from(input.data.subarray(i * width, (i + 1) * width)),
  );
};
const mean = (row: readonly number[]) => row.reduce((a, b) => a + b, 0) / row.length;

interface Case {
  readonly name: string;
  readonly build: (b: Builder, ...values: Value[]) => Value | Value[];
  readonly inputs?: readonly Input[];
  readonly expected: readonly (readonly number[])[];
  /** Op at the newest opset and at 11. */
  readonly native?: string;
}

const layerNorm = (row: readonly number[]) => {
  const m = mean(row);
  const v = mean(row.map((a) => (a - m) ** 2));
  return row.map((a) => (a - m) / Math.sqrt(v + 1e-5));
};
const softmax = (row: readonly number[]) => {
  const e = row.map(Math.exp);
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((a) => a / sum);
};
/** Softmax over the middle axis of [2, 3, 4]. */
const softmaxMiddle = (() => {
  const out = new Array<number>(24);
  for (let n = 0; n < 2; n++)
    for (let k = 0; k < 4; k++) {
      const column = softmax([0, 1, 2].map((j) => x.data[n * 12 + j * 4 + k]!));
      for (let j = 0; j < 3; j++) out[n * 12 + j * 4 + k] = column[j]!;
    }
  return out;
})();
const weight = random([4], 11);
const bias = random([4], 13);

const cases: readonly Case[] = [
  {
    name: 'Gelu',
    build: (b, v) => b.op.Gelu(v!),
    expected: [map((v) => 0.5 * v * (1 + erf(v * Math.SQRT1_2)))],
  },
  {
    name: 'Gelu tanh',
    build: (b, v) => b.op.Gelu(v!, { approximate: 'tanh' }),
    expected: [map((v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))))],
  },
  {
    name: 'LayerNormalization',
    build: (b, v, w, c) => b.op.LayerNormalization(v!, w!, c!),
    inputs: [x, weight, bias],
    expected: [rows(x).flatMap((row) => layerNorm(row).map((a, i) => a * weight.data[i]! + bias.data[i]!))],
  },
  {
    name: 'RMSNormalization',
    build: (b, v, w) => b.op.RMSNormalization(v!, w!, { epsilon: 1e-5 }),
    inputs: [x, weight],
    expected: [
      rows(x).flatMap((row) => {
        const root = Math.sqrt(mean(row.map((a) => a * a)) + 1e-5);
        return row.map((a, i) => (a / root) * weight.data[i]!);
      }),
    ],
  },
  {
    name: 'Softmax of the last axis',
    build: (b, v) => b.op.Softmax(v!),
    expected: [rows(x).flatMap(softmax)],
  },
  {
    name: 'Softmax of a middle axis',
    build: (b, v) => b.op.Softmax(v!, { axis: 1 }),
    expected: [softmaxMiddle],
  },
  {
    name: 'LogSoftmax',
    build: (b, v) => b.op.LogSoftmax(v!, { axis: -2 }),
    expected: [softmaxMiddle.map(Math.log)],
  },
  {
    name: 'Split in equal parts',
    build: (b, v) => b.op.Split(v!, null, { axis: -1 }, 2),
    expected: [rows(x).flatMap((r) => r.slice(0, 2)), rows(x).flatMap((r) => r.slice(2))],
  },
  {
    name: 'Split with a smaller rest',
    build: (b, v) => b.op.Split(v!, null, { axis: -1, num_outputs: 3 }, 3),
    inputs: [random([2, 5], 3)],
    expected: [
      [0, 2],
      [2, 4],
      [4, 5],
    ].map(([s, e]) => rows(random([2, 5], 3)).flatMap((r) => r.slice(s, e))),
  },
  {
    name: 'Split by sizes',
    build: (b, v) => b.op.Split(v!, [1, 3], { axis: 2 }, 2),
    expected: [rows(x).flatMap((r) => r.slice(0, 1)), rows(x).flatMap((r) => r.slice(1))],
  },
  {
    name: 'ReduceMean, ReduceSum, Unsqueeze, Squeeze',
    build: (b, v) =>
      b.op.Squeeze(b.op.Unsqueeze(b.op.Add(b.op.ReduceMean(v!, [-1]), b.op.ReduceSum(v!, [2])), [0]), [0, 3]),
    expected: [rows(x).map((r) => mean(r) * 5)],
  },
  {
    name: 'Clip',
    build: (b, v) => b.op.Clip(v!, -0.5, 0.75),
    expected: [map((v) => Math.min(Math.max(v, -0.5), 0.75))],
  },
  {
    name: 'Clip above only',
    build: (b, v) => b.op.Clip(v!, null, 0.75),
    expected: [map((v) => Math.min(v, 0.75))],
  },
  {
    name: 'Mish',
    build: (b, v) => b.op.Mish(v!),
    expected: [map((v) => v * Math.tanh(Math.log1p(Math.exp(v))))],
  },
  {
    name: 'HardSwish',
    build: (b, v) => b.op.HardSwish(v!),
    expected: [map((v) => v * Math.min(Math.max(v / 6 + 0.5, 0), 1))],
  },
  {
    name: 'Swish',
    build: (b, v) => b.op.Swish(v!, { alpha: 1.5 }),
    expected: [map((v) => v * sigmoid(1.5 * v))],
  },
  {
    name: 'Celu',
    build: (b, v) => b.op.Celu(v!, { alpha: 0.7 }),
    expected: [map((v) => Math.max(0, v) + Math.min(0, 0.7 * (Math.exp(v / 0.7) - 1)))],
  },
  {
    name: 'GreaterOrEqual',
    build: (b, v) => b.op.Cast(b.op.GreaterOrEqual(v!, 0.25), { to: 'float32' }),
    expected: [map((v) => Number(v >= 0.25))],
  },
  {
    name: 'LessOrEqual',
    build: (b, v) => b.op.Cast(b.op.LessOrEqual(v!, 0.25), { to: 'float32' }),
    expected: [map((v) => Number(v <= 0.25))],
  },
  {
    name: 'Trilu',
    build: (b, v) => b.op.Trilu(v!, 1n, { upper: 0 }),
    expected: [Array.from(x.data, (v, i) => ((i % 4) - (Math.floor(i / 4) % 3) <= 1 ? v : 0))],
  },
  {
    name: 'CastLike and Pow',
    build: (b, v) => b.op.Pow(v!, b.op.CastLike(b.scalar(2n, 'int64'), v!)),
    expected: [map((v) => v * v)],
  },
  {
    name: 'Pad of one axis',
    build: (b, v) => b.op.Pad(v!, [1, 0], 3, [-1]),
    inputs: [random([2, 2], 5)],
    expected: [rows(random([2, 2], 5)).flatMap((r) => [3, ...r])],
  },
  {
    name: 'Shape range',
    build: (b, v) => b.op.Cast(b.op.Shape(v!, { start: 1 }), { to: 'float32' }),
    expected: [[3, 4]],
  },
  {
    name: 'TopK',
    build: (b, v) => b.op.TopK(v!, [2], { axis: -1 })[0],
    expected: [rows(x).flatMap((r) => [...r].sort((a, c) => c - a).slice(0, 2))],
  },
  {
    name: 'Dropout in inference',
    build: (b, v) => b.op.Dropout(v!, 0.3),
    expected: [Array.from(x.data)],
  },
  {
    name: 'GroupNormalization',
    build: (b, v, w, c) => b.op.GroupNormalization(v!, w!, c!, { num_groups: 2 }),
    inputs: [random([2, 4, 3], 17), weight, bias],
    expected: [
      rows({ dims: [4, 6], data: random([2, 4, 3], 17).data }).flatMap((group, g) =>
        layerNorm(group).map((a, i) => {
          const channel = (g % 2) * 2 + Math.floor(i / 3);
          return a * weight.data[channel]! + bias.data[channel]!;
        }),
      ),
    ],
  },
  {
    name: 'slices and gathers',
    build: (b, v) => b.op.Slice(v!, [-1], [2 ** 31 - 1], [2], [1]),
    expected: [rows(x).map((r) => r.at(-1)!)],
  },
];

describe.each([11, 12, 13, 14, 17, 18, 20, 21, 23])('opset %i', (opset) => {
  it.each(cases.map((c) => [c.name, c] as const))('%s', async (_, { build, inputs = [x], expected }) => {
    const { outputs, types } = await run(opset, inputs, build);
    expect(outputs).toHaveLength(expected.length);
    for (const [i, output] of outputs.entries()) {
      expect(types[i]).toEqual(tensorType('float32' satisfies DType, output.dims));
      expect(output.data).toHaveLength(expected[i]!.length);
      // float32 with up to some ten operations on numbers of size 10, and erf to 1.5e-7.
      for (const [j, value] of output.data.entries())
        expect(Math.abs(value - expected[i]![j]!), `element ${j}`).toBeLessThan(5e-6);
    }
  });
});

describe('forms', () => {
  const opsOf = async (opset: number, name: string) => {
    const { build, inputs = [x] } = cases.find((c) => c.name === name)!;
    return (await run(opset, inputs, build)).ops;
  };
  it('uses the operator where the opset has it', async () => {
    expect(await opsOf(20, 'Gelu')).toEqual(['Gelu']);
    expect(await opsOf(17, 'LayerNormalization')).toEqual(['LayerNormalization']);
    expect(await opsOf(11, 'Softmax of the last axis')).toEqual(['Softmax']);
    expect(await opsOf(11, 'Softmax of a middle axis')).toEqual(['Transpose', 'Softmax', 'Transpose']);
    expect(await opsOf(13, 'Softmax of a middle axis')).toEqual(['Softmax']);
  });
});
