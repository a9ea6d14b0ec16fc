/**
 * An expansion against the fused kernel of ONNX Runtime: equal outputs, and gradients of the expansion against
 * differences of the kernel, (4·D(h/2) - D(h)) / 3 along a random direction.
 */
import ort from 'onnxruntime-node';
import { applyEdit } from '../../passes/edit.js';
import { backward } from '../../passes/grad/backward.js';
import { expandPass, whyNotExpanded } from '../../passes/normalize/expand.js';
import { runPasses } from '../../passes/runner.js';
import { cloneModel } from '../../src/clone.js';
import { Graph, type Node, Value } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import { randomStream } from '../../src/initializer.js';
import { Model } from '../../src/model.js';
import type { AttributeInput } from '../../src/ops/attributes.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, tensorType } from '../../src/types.js';
import { numbers, sessionOf } from '../helpers/run.js';

/** Dims of a random float tensor that gets a gradient, or a tensor with given contents that gets none. */
export type Input =
  | readonly number[]
  | {
      readonly dims: readonly number[];
      readonly dtype: 'int32' | 'int64' | 'bool';
      readonly data: readonly number[];
    }
  | { readonly dims: readonly number[]; readonly angles: 'cos' | 'sin' };

export interface Case {
  readonly op: string;
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, AttributeInput>>;
  readonly inputs: readonly (Input | null)[];
  /** Which outputs are compared; the first by default. */
  readonly outputs?: readonly boolean[];
  /** Rows of [batch, tokens, …] outputs that hold tokens: what the kernel leaves in padding is its own. */
  readonly tokens?: readonly number[];
  readonly opset?: number;
  /** Outputs after so many are asked for and not looked at. */
  readonly compared?: number;
  /** Differences of the kernel say nothing: it has kinks. */
  readonly kinked?: boolean;
  /** Sizes that are symbols, whatever the axis. */
  readonly symbolic?: Readonly<Record<number, string>>;
}

export function build(test: Case): { readonly model: Model; readonly node: Node } {
  const model = new Model(new Graph());
  model.opsets.set('', test.opset ?? 21).set('com.microsoft', 1);
  const values = test.inputs.map((input, i) => {
    if (input === null) return null;
    const { dtype, dims } = described(input);
    const shape = dims.map((dim) => (test.symbolic?.[dim] ?? dim) as number | string);
    return model.graph.addInput(new Value({ name: `x${i}`, type: tensorType(dtype, shape) }));
  });
  const b = new Builder(model);
  const wanted = test.outputs ?? [true];
  const made = b.call(test.op, values, test.attributes ?? {}, { domain: test.domain ?? '', outputs: wanted });
  const { graph } = model;
  applyEdit({ label: 'case', graph, add: { nodes: b.nodes, at: 'end' }, addInitializers: b.initializers });
  for (const [i, value] of made.entries()) graph.addOutput(`y${i}`, value);
  return { model, node: b.nodes[0] as Node };
}

function described(input: Input): { readonly dtype: DType; readonly dims: readonly number[] } {
  if (!('dims' in input)) return { dtype: 'float32', dims: input };
  return { dtype: 'dtype' in input ? input.dtype : 'float32', dims: input.dims };
}

type Numbers = readonly (readonly number[])[];

/** Contents of every input, empty for those left out. */
function drawn(name: string, test: Case): Numbers {
  const random = randomStream(11, name);
  return test.inputs.map((input) => {
    if (input === null) return [];
    const { dims } = described(input);
    const count = dims.reduce((a, c) => a * c, 1);
    if ('data' in input) return input.data;
    if ('angles' in input) {
      const half = dims.at(-1) ?? 1;
      const turn = (i: number) => Math.floor(i / half) / 3 ** (i % half);
      return Array.from({ length: count }, (_, i) => Math[input.angles](turn(i)));
    }
    return Array.from({ length: count }, () => 2 * random() - 1);
  });
}

function feedsOf(test: Case, data: Numbers): Record<string, ort.Tensor> {
  return Object.fromEntries(
    test.inputs.flatMap((input, i): [string, ort.Tensor][] => {
      if (input === null) return [];
      const { dtype, dims } = described(input);
      const values = data[i] ?? [];
      if (dtype === 'int64')
        return [[`x${i}`, new ort.Tensor('int64', BigInt64Array.from(values, BigInt), dims)]];
      if (dtype === 'int32') return [[`x${i}`, new ort.Tensor('int32', Int32Array.from(values), dims)]];
      if (dtype === 'bool') return [[`x${i}`, new ort.Tensor('bool', Uint8Array.from(values), dims)]];
      return [[`x${i}`, new ort.Tensor('float32', Float32Array.from(values), dims)]];
    }),
  );
}

export interface Outcome {
  /** Operators of the expanded graph. */
  readonly ops: readonly string[];
  /** Largest difference of an output over its scale. */
  readonly forward: number;
  /** Largest error of a directional derivative over the size it typically has. */
  readonly backward: number;
}

/** Weights of the loss: 0 where the kernel's output is padding. */
function weightsOf(test: Case, name: string, outputs: readonly ort.Tensor[]): number[][] {
  const random = randomStream(13, name);
  return outputs.map(({ dims }) => {
    const row = dims.slice(1).reduce((a, c) => a * c, 1);
    const token = dims.slice(2).reduce((a, c) => a * c, 1);
    return Array.from({ length: dims.reduce((a, c) => a * c, 1) }, (_, i) => {
      const weight = 2 * random() - 1;
      const length = dims.length === 3 ? test.tokens?.[Math.floor(i / row)] : undefined;
      return length !== undefined && Math.floor((i % row) / token) >= length ? 0 : weight;
    });
  });
}

export async function compare(name: string, test: Case): Promise<Outcome> {
  const { model } = build(test);
  const { model: expanded } = cloneModel(model);
  inferModel(expanded);
  runPasses(expanded, [expandPass]);
  const ops = [...expanded.graph.nodes()].map((node) => node.qualifiedOp);
  const data = drawn(name, test);
  const kernel = await sessionOf(model);
  const plain = await sessionOf(expanded);
  const names = model.graph.outputs.slice(0, test.compared).map((output) => output.name ?? '');
  try {
    const run = async (session: ort.InferenceSession, values: Numbers): Promise<ort.Tensor[]> => {
      const got = await session.run(feedsOf(test, values));
      return names.map((output) => got[output] as ort.Tensor);
    };
    const [wanted, got] = [await run(kernel, data), await run(plain, data)];
    const weights = weightsOf(test, name, wanted);
    const forward = Math.max(...wanted.map((y, k) => apart(numbers(y), numbers(got[k]), weights[k] ?? [])));
    const loss = async (values: Numbers): Promise<number> =>
      (await run(kernel, values)).reduce((sum, y, k) => sum + dot(numbers(y), weights[k] ?? []), 0);
    if (test.kinked === true) return { ops, forward, backward: 0 };
    return { ops, forward, backward: await slopes(name, test, expanded, data, wanted, weights, loss) };
  } finally {
    await kernel.release();
    await plain.release();
  }
}

async function slopes(
  name: string,
  test: Case,
  expanded: Model,
  data: Numbers,
  outputs: readonly ort.Tensor[],
  weights: readonly (readonly number[])[],
  loss: (values: Numbers) => Promise<number>,
): Promise<number> {
  const { graph } = expanded;
  const trained = test.inputs.flatMap((input, i) => (input !== null && !('dims' in input) ? [i] : []));
  const wrt = trained.map((i) => graph.inputs.find((value) => value.name === `x${i}`) as Value);
  const b = new Builder(expanded);
  const floats = graph.outputs
    .slice(0, test.compared)
    .filter(({ value }) => value.type?.kind === 'tensor' && value.type.dtype === 'float32');
  const seeds = floats.map(
    ({ value, name: output }) =>
      graph.addInput(
        new Value({
          name: `r${output}`,
          type: tensorType('float32', outputs[Number(output?.slice(1))]?.dims ?? []),
        }),
      ) && { value, output },
  );
  const sums = seeds.map(({ value, output }) =>
    b.op.ReduceSum(b.op.Mul(value, graph.inputs.find((one) => one.name === `r${output}`) as Value), null, {
      keepdims: 0,
    }),
  );
  const total = sums.reduce((a, c) => b.op.Add(a, c));
  applyEdit({ label: 'loss', graph, add: { nodes: b.nodes, at: 'end' }, addInitializers: b.initializers });
  const { edit, gradients } = backward(expanded, { loss: total, wrt, unreachable: 'zeros' });
  applyEdit(edit);
  graph.clearOutputs();
  for (const [x, gradient] of gradients) graph.addOutput(`g${x.name}`, gradient);
  const session = await sessionOf(expanded);
  try {
    const extra = Object.fromEntries(
      floats.map(({ name: output }) => {
        const k = Number(output?.slice(1));
        return [
          `r${output}`,
          new ort.Tensor('float32', Float32Array.from(weights[k] ?? []), outputs[k]?.dims ?? []),
        ];
      }),
    );
    const got = await session.run({ ...feedsOf(test, data), ...extra });
    const random = randomStream(17, name);
    let worst = 0;
    const all = trained.map((i) => numbers(got[`gx${i}`]));
    const scale = Math.hypot(...all.flat());
    for (const [k, i] of trained.entries()) {
      const gradient = all[k] ?? [];
      const direction = gradient.map(() => 2 * random() - 1);
      const at = (h: number) =>
        loss(data.map((values, j) => (j === i ? values.map((v, n) => v + h * (direction[n] ?? 0)) : values)));
      const slope = async (h: number) => ((await at(h)) - (await at(-h))) / (2 * h);
      const h = 8e-2;
      const difference = (4 * (await slope(h / 2)) - (await slope(h))) / 3;
      const size =
        (Math.hypot(...gradient, 0.1 * scale) * Math.hypot(...direction)) / Math.sqrt(direction.length);
      worst = Math.max(worst, Math.abs(difference - dot(gradient, direction)) / size);
    }
    return worst;
  } finally {
    await session.release();
  }
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, i) => sum + (b[i] === 0 ? 0 : value * (b[i] ?? 0)), 0);
}

function apart(a: readonly number[], b: readonly number[], weights: readonly number[]): number {
  const scale = Math.max(1e-3, ...a.map((value, i) => (weights[i] === 0 ? 0 : Math.abs(value))));
  return (
    Math.max(...a.map((value, i) => (weights[i] === 0 ? 0 : Math.abs(value - (b[i] ?? Number.NaN))))) / scale
  );
}

/** Why a case is not expanded. */
export function refusal(test: Case): string | undefined {
  const { model, node } = build(test);
  inferModel(model);
  return whyNotExpanded(model, node);
}
