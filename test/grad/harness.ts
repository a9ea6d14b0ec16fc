/**
 * Finite differences against the backward pass, in ONNX Runtime. With L = Σ yₖ·rₖ for random rₖ and a random direction
 * v, D(h) = (L(x+hv) - L(x-hv)) / 2h and the Richardson value (4·D(h/2) - D(h)) / 3 have to meet ⟨dL/dx, v⟩.
 */
import ort from 'onnxruntime-node';
import { applyEdit } from '../../passes/edit.js';
import { backward } from '../../passes/grad/backward.js';
import { Graph, Value } from '../../src/graph.js';
import { randomStream } from '../../src/initializer.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, type Shape, tensorType } from '../../src/types.js';
import { numbers, sessionOf } from '../helpers/run.js';

/** How an input's elements are drawn, so that no kink lies within a difference step. */
export type Draw = (random: () => number, index: number, count: number) => number;

export const draw = {
  normal: (random) => 2.4 * random() - 1.2,
  positive: (random) => 0.5 + 1.5 * random(),
  /** Inside (-0.8, 0.8). */
  unit: (random) => 1.6 * random() - 0.8,
  aboveOne: (random) => 1.3 + 2 * random(),
  /** At least 0.15 from 0. */
  awayFromZero: (random) => (random() < 0.5 ? -1 : 1) * (0.15 + 1.5 * random()),
  /** Pairwise at least 0.1 apart, in scrambled order. */
  distinct: (random, index, count) =>
    0.2 * (((index * 7 + 3) % (count + (count % 7 === 0 ? 1 : 0))) - count / 2) + 0.1 * random(),
} satisfies Record<string, Draw>;

export interface TensorInput {
  readonly shape: readonly number[];
  readonly draw?: Draw;
  /** Not differentiated; may be an integer tensor with given contents. */
  readonly fixed?: { readonly dtype: DType; readonly data: readonly number[] };
}

export type Variant = 'static' | 'symbolic' | 'unknown';

export interface GradientCase {
  readonly name: string;
  readonly inputs: readonly TensorInput[];
  readonly build: (b: Builder, inputs: readonly Value[]) => Value | readonly Value[];
  /** float64 unless ONNX Runtime's CPU kernels lack it. */
  readonly dtype?: 'float32' | 'float64';
  readonly opset?: number;
  /** Which knowledge of shapes to test; all by default. */
  readonly variants?: readonly Variant[];
  /** The gradient is zero everywhere (no finite difference to compare with). */
  readonly flat?: boolean;
}

export interface Comparison {
  readonly input: number;
  readonly variant: Variant;
  readonly difference: number;
  readonly gradient: number;
  /** |difference - gradient| over the size that ⟨g, v⟩ typically has, ‖g‖·‖v‖/√n. */
  readonly error: number;
  /** What rounding in the forward pass allows. */
  readonly tolerance: number;
}

const STEP = { float64: 1e-3, float32: 4e-2 } as const;
const EPSILON = { float64: 2 ** -53, float32: 2 ** -24 } as const;

function shapeOf(dims: readonly number[], variant: Variant): Shape {
  if (variant === 'static') return dims;
  return dims.map((dim) => (variant === 'unknown' ? null : dim === 1 ? 1 : `n${dim}`));
}

function tensor(dtype: DType, data: readonly number[], dims: readonly number[]): ort.Tensor {
  switch (dtype) {
    case 'float64':
      return new ort.Tensor('float64', Float64Array.from(data), dims);
    case 'float32':
      return new ort.Tensor('float32', Float32Array.from(data), dims);
    case 'int64':
      return new ort.Tensor('int64', BigInt64Array.from(data, BigInt), dims);
    case 'int32':
      return new ort.Tensor('int32', Int32Array.from(data), dims);
    case 'bool':
      return new ort.Tensor('bool', Uint8Array.from(data), dims);
    default:
      throw new Error(`no test tensors of dtype ${dtype}`);
  }
}

interface Built {
  readonly model: Model;
  readonly outputs: readonly Value[];
  readonly weights: readonly Value[];
}

/** The case's graph with its weighted sum and gradients as outputs y0…, g<i>. */
function build(test: GradientCase, variant: Variant): Built {
  const dtype = test.dtype ?? 'float64';
  const model = new Model(new Graph());
  model.opsets.set('', test.opset ?? 21);
  const inputs = test.inputs.map(
    ({ shape, fixed }, i) =>
      new Value({ name: `x${i}`, type: tensorType(fixed?.dtype ?? dtype, shapeOf(shape, variant)) }),
  );
  for (const value of inputs) model.graph.addInput(value);
  const b = new Builder(model);
  const built = test.build(b, inputs);
  const outputs = built instanceof Value ? [built] : [...built];
  const weights = outputs.map((y, k) => new Value({ name: `r${k}`, ...(y.type && { type: y.type }) }));
  for (const value of weights) model.graph.addInput(value);
  const sums = outputs.map((y, k) => b.op.ReduceSum(b.op.Mul(y, weights[k]!), null, { keepdims: 0 }));
  const loss = sums.reduce((a, c) => b.op.Add(a, c));
  const graph = model.graph;
  applyEdit({ label: 'case', graph, add: { nodes: b.nodes, at: 'end' }, addInitializers: b.initializers });
  const wrt = inputs.filter((_, i) => test.inputs[i]?.fixed === undefined);
  const { edit, gradients } = backward(model, {
    loss,
    wrt,
    ...(test.flat && { unreachable: 'zeros' as const }),
  });
  applyEdit(edit);
  outputs.forEach((y, k) => {
    graph.addOutput(`y${k}`, y);
  });
  for (const [x, gradient] of gradients) graph.addOutput(`g${x.name}`, gradient);
  return { model, outputs, weights };
}

/** Runs all variants of a case; one comparison per differentiated input and variant. */
export async function compare(test: GradientCase): Promise<Comparison[]> {
  const results: Comparison[] = [];
  for (const variant of test.variants ?? (['static', 'symbolic', 'unknown'] as const))
    results.push(...(await compareVariant(test, variant)));
  return results;
}

async function compareVariant(test: GradientCase, variant: Variant): Promise<Comparison[]> {
  const dtype = test.dtype ?? 'float64';
  const random = randomStream(7, `${test.name}`);
  const data = test.inputs.map(({ shape, draw: how = draw.normal, fixed }) => {
    const count = shape.reduce((a, c) => a * c, 1);
    return fixed ? [...fixed.data] : Array.from({ length: count }, (_, i) => how(random, i, count));
  });
  const { model, outputs } = build(test, variant);
  const session = await sessionOf(model);
  const forward = await forwardOnly(test);
  try {
    const feedsOf = (values: readonly (readonly number[])[]) =>
      Object.fromEntries(
        test.inputs.map(({ shape, fixed }, i) => [
          `x${i}`,
          tensor(fixed?.dtype ?? dtype, values[i] ?? [], shape),
        ]),
      );
    const names = outputs.map((_, k) => `y${k}`);
    const first = await forward.run(feedsOf(data));
    const weights = names.map((name) => {
      const y = first[name];
      if (y === undefined) throw new Error(`no output ${name}`);
      return { type: y.type as DType, dims: y.dims, data: numbers(y).map(() => random() * 2 - 1) };
    });
    const loss = (run: ort.InferenceSession.OnnxValueMapType) =>
      names.reduce((sum, name, k) => sum + dot(numbers(run[name] as ort.Tensor), weights[k]?.data ?? []), 0);
    const seeds = Object.fromEntries(
      weights.map(({ type, dims, data: r }, k) => [`r${k}`, tensor(type, r, dims)]),
    );
    const run = await session.run({ ...feedsOf(data), ...seeds });
    const rounding = Math.hypot(
      ...names.flatMap((name, k) => numbers(run[name]).map((y, i) => y * (weights[k]?.data[i] ?? 0))),
    );
    const comparisons: Comparison[] = [];
    for (const [i, input] of test.inputs.entries()) {
      if (input.fixed !== undefined) continue;
      const result = run[`gx${i}`];
      if (result === undefined) throw new Error(`no gradient of input ${i}`);
      if (result.dims.join() !== input.shape.join())
        throw new Error(
          `gradient of input ${i} has shape [${result.dims.join()}], not [${input.shape.join()}] (${variant})`,
        );
      const gradient = numbers(result);
      const x = data[i] ?? [];
      const direction = x.map(() => random() * 2 - 1);
      const at = async (h: number) => {
        const moved = data.map((values, j) =>
          j === i ? values.map((v, k) => v + h * (direction[k] ?? 0)) : values,
        );
        return loss(await forward.run(feedsOf(moved)));
      };
      const slope = async (h: number) => ((await at(h)) - (await at(-h))) / (2 * h);
      const h = STEP[dtype];
      const difference = (4 * (await slope(h / 2)) - (await slope(h))) / 3;
      const value = dot(gradient, direction);
      const size = (Math.hypot(...gradient) * Math.hypot(...direction)) / Math.sqrt(Math.max(1, x.length));
      const scale = Math.max(Math.abs(value), size, Number.MIN_VALUE);
      comparisons.push({
        input: i,
        variant,
        difference,
        gradient: value,
        error: test.flat ? Math.hypot(...gradient) : Math.abs(difference - value) / scale,
        // Rounding of y reaches the differences as 8/3·ε·‖y·r‖ / (h/2), four values each; kernels round a few times.
        tolerance:
          dtype === 'float64'
            ? 1e-6
            : Math.max(2e-5, (32 * EPSILON[dtype] * Math.max(rounding, size)) / h / scale),
      });
    }
    return comparisons;
  } finally {
    await session.release();
    await forward.release();
  }
}

/** The case's graph alone, as built for static shapes. */
async function forwardOnly(test: GradientCase): Promise<ort.InferenceSession> {
  const dtype = test.dtype ?? 'float64';
  const model = new Model(new Graph());
  model.opsets.set('', test.opset ?? 21);
  const inputs = test.inputs.map(
    ({ shape, fixed }, i) => new Value({ name: `x${i}`, type: tensorType(fixed?.dtype ?? dtype, shape) }),
  );
  for (const value of inputs) model.graph.addInput(value);
  const b = new Builder(model);
  const built = test.build(b, inputs);
  applyEdit({
    label: 'case',
    graph: model.graph,
    add: { nodes: b.nodes, at: 'end' },
    addInitializers: b.initializers,
  });
  (built instanceof Value ? [built] : [...built]).forEach((y, k) => {
    model.graph.addOutput(`y${k}`, y);
  });
  return sessionOf(model);
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] ?? 0), 0);
}
