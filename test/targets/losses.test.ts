/** Losses against plain float64 references, values and gradients, static and symbolic shapes. */
import ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { applyEdit } from '../../passes/edit.js';
import { lossById } from '../../passes/losses/index.js';
import { PublicNames } from '../../passes/targets/names.js';
import { addObjective, differentiate } from '../../passes/targets/objective.js';
import { Graph, Value } from '../../src/graph.js';
import { randomStream } from '../../src/initializer.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, tensorType } from '../../src/types.js';
import { numbers, sessionOf } from '../helpers/run.js';

type Vector = readonly number[];
type Label = {
  readonly dtype: 'int64' | 'float32';
  readonly shape: readonly number[];
  readonly data: Vector;
};
/** Sum and weight of the batch, from the flat scores. */
type Reference = (scores: Vector) => { total: number; weight: number };

interface Case {
  readonly loss: string;
  readonly config?: Record<string, unknown>;
  readonly shape: readonly number[];
  readonly label?: Label;
  readonly reference: Reference;
  /** Scores; random around 0 by default. */
  readonly scores?: Vector;
  readonly dtype?: 'float32' | 'float64';
  readonly correct?: number;
}

function lossModel({ loss, config, shape, dtype = 'float64' }: Case, symbolic: boolean, lossScale = 1) {
  const model = new Model(new Graph());
  model.opsets.set('', 17);
  const dims = shape.map((d, i) => (symbolic && i < shape.length - 1 ? `n${i}` : d));
  const x = model.graph.addInput(new Value({ name: 'x', type: tensorType(dtype, dims) }));
  const b = new Builder(model);
  const logits = b.op.Identity(x);
  applyEdit({ label: 'model', graph: model.graph, add: { nodes: b.nodes, at: 'end' } });
  model.graph.addOutput('scores', logits);
  const objective = addObjective(model, lossById(loss).configure(config), new PublicNames(model), new Map());
  const gradient = differentiate(model, objective, [x], { mean: true, lossScale }).get(x);
  if (gradient === undefined) throw new Error('no gradient');
  model.graph.clearOutputs();
  model.graph.addOutput('loss', objective.loss);
  model.graph.addOutput('total', objective.built.total);
  model.graph.addOutput('weight', objective.weight);
  model.graph.addOutput('gradient', gradient);
  for (const metric of objective.built.metrics ?? []) model.graph.addOutput(metric.name, metric.value);
  return { model, labels: objective.labels };
}

const tensors: Partial<Record<DType, (data: Vector, dims: Vector) => ort.Tensor>> = {
  float32: (data, dims) => new ort.Tensor('float32', Float32Array.from(data), dims),
  float64: (data, dims) => new ort.Tensor('float64', Float64Array.from(data), dims),
  int64: (data, dims) => new ort.Tensor('int64', BigInt64Array.from(data, BigInt), dims),
};

async function check(test: Case, symbolic: boolean): Promise<void> {
  const dtype = test.dtype ?? 'float64';
  const { model, labels } = lossModel(test, symbolic);
  const random = randomStream(3, test.loss);
  const count = test.shape.reduce((n, d) => n * d, 1);
  const scores = test.scores ?? Array.from({ length: count }, () => 6 * random() - 3);
  const feeds: Record<string, ort.Tensor> = { x: tensors[dtype]!(scores, test.shape) };
  const { label } = test;
  if (label !== undefined) {
    expect(labels.map(({ value }) => value.type)).toMatchObject([{ dtype: label.dtype }]);
    expect(labels[0]!.value.name).toBe('labels');
    feeds.labels = tensors[label.dtype]!(label.data, label.shape);
  }
  const session = await sessionOf(model);
  const results = await session.run(feeds);
  await session.release();

  const { total, weight } = test.reference(scores);
  const close = dtype === 'float64' ? 1e-12 : 2e-6;
  expect(numbers(results.total)[0]).toSatisfy(
    (v: number) => Math.abs(v - total) <= close * (1 + Math.abs(total)),
  );
  expect(numbers(results.weight)[0]).toBeCloseTo(weight, 6);
  const divisor = Math.max(weight, 1e-12);
  expect(Math.abs(numbers(results.loss)[0]! - total / divisor)).toBeLessThan(1e-6 * (1 + Math.abs(total)));
  if (test.correct !== undefined) expect(numbers(results.correct)[0]).toBe(test.correct);

  const gradient = numbers(results.gradient);
  const h = 1e-4;
  for (let i = 0; i < count; i++) {
    const at = (delta: number) =>
      test.reference(scores.map((v, j) => (j === i ? v + delta : v))).total / divisor;
    // Error of the central difference: h²/6 times a third derivative of order 1, and rounding 1e-16·loss/h.
    const difference = (at(h) - at(-h)) / (2 * h);
    expect(Math.abs(gradient[i]! - difference)).toBeLessThan(dtype === 'float64' ? 1e-8 : 2e-6);
  }
}

function crossEntropy(
  classes: number,
  labels: Vector,
  options: { smoothing?: number; weights?: Vector } = {},
): Reference {
  const { smoothing = 0, weights = new Array<number>(classes).fill(1) } = options;
  return (scores) => {
    let total = 0;
    let weight = 0;
    for (const [row, label] of labels.entries()) {
      if (label === -100) continue;
      const z = scores.slice(row * classes, (row + 1) * classes);
      const top = Math.max(...z);
      const logSum = top + Math.log(z.reduce((sum, v) => sum + Math.exp(v - top), 0));
      const smooth = z.reduce((sum, v, c) => sum + weights[c]! * (logSum - v), 0) / classes;
      total += (1 - smoothing) * weights[label]! * (logSum - z[label]!) + smoothing * smooth;
      weight += weights[label]!;
    }
    return { total, weight };
  };
}

const ids = (shape: Vector, data: Vector): Label => ({ dtype: 'int64', shape, data });
const labels6 = [2, -100, 0, 4, 1, -100];

const CASES: Record<string, Case> = {
  'classification of rows': {
    loss: 'classification',
    shape: [6, 5],
    label: ids([6], labels6),
    reference: crossEntropy(5, labels6),
  },
  'classification of tokens': {
    loss: 'classification',
    shape: [2, 3, 5],
    label: ids([2, 3], labels6),
    reference: crossEntropy(5, labels6),
  },
  'classification in float32': {
    loss: 'classification',
    shape: [6, 5],
    label: ids([6], labels6),
    reference: crossEntropy(5, labels6),
    dtype: 'float32',
  },
  'label smoothing': {
    loss: 'classification',
    config: { labelSmoothing: 0.2 },
    shape: [6, 5],
    label: ids([6], labels6),
    reference: crossEntropy(5, labels6, { smoothing: 0.2 }),
  },
  'class weights': {
    loss: 'classification',
    config: { classWeights: [0.5, 2, 1, 0, 3] },
    shape: [6, 5],
    label: ids([6], labels6),
    reference: crossEntropy(5, labels6, { weights: [0.5, 2, 1, 0, 3] }),
  },
  'class weights and smoothing': {
    loss: 'classification',
    config: { classWeights: [0.5, 2, 1, 0, 3], labelSmoothing: 0.1 },
    shape: [6, 5],
    label: ids([6], labels6),
    reference: crossEntropy(5, labels6, { weights: [0.5, 2, 1, 0, 3], smoothing: 0.1 }),
  },
  'scores far apart': {
    loss: 'classification',
    shape: [3, 3],
    scores: [900, 0, -900, 0, 500, 0, -3000, -3001, -3002],
    label: ids([3], [2, 1, 0]),
    reference: crossEntropy(3, [2, 1, 0]),
    correct: 2,
  },
  'nothing that counts': {
    loss: 'classification',
    shape: [2, 3],
    label: ids([2], [-100, -100]),
    reference: crossEntropy(3, [-100, -100]),
    correct: 0,
  },
  'causal language model': {
    loss: 'causal-lm',
    shape: [2, 4, 5],
    label: ids([2, 4], [3, 1, -100, 2, 0, 4, 4, 1]),
    // Position t is scored against label t + 1; the last one against nothing.
    reference: crossEntropy(5, [1, -100, 2, -100, 4, 4, 1, -100]),
  },
  'causal language model with smoothing': {
    loss: 'causal-lm',
    config: { labelSmoothing: 0.1 },
    shape: [2, 4, 5],
    label: ids([2, 4], [3, 1, -100, 2, 0, 4, 4, 1]),
    reference: crossEntropy(5, [1, -100, 2, -100, 4, 4, 1, -100], { smoothing: 0.1 }),
  },
  'mean squared error': {
    loss: 'mse',
    shape: [2, 3],
    label: { dtype: 'float32', shape: [2, 3], data: [0.5, -1, 2, 0, 0.25, 1] },
    reference: (y) => ({
      total: y.reduce((sum, v, i) => sum + (v - [0.5, -1, 2, 0, 0.25, 1][i]!) ** 2, 0),
      weight: 6,
    }),
  },
  'regression of one number': {
    loss: 'mse',
    shape: [3, 1],
    label: { dtype: 'float32', shape: [3], data: [0.5, -1, 2] },
    reference: (y) => ({ total: y.reduce((sum, v, i) => sum + (v - [0.5, -1, 2][i]!) ** 2, 0), weight: 3 }),
  },
  'binary cross-entropy': {
    loss: 'bce-with-logits',
    config: { positiveWeights: [1, 3, 0.5] },
    shape: [2, 3],
    scores: [0.3, -2, 4, 1, 2.5, -0.5],
    dtype: 'float32',
    label: { dtype: 'float32', shape: [2, 3], data: [1, 0, 0.5, 1, 1, 0] },
    reference: (x) => ({
      total: x.reduce((sum, v, i) => {
        const t = [1, 0, 0.5, 1, 1, 0][i]!;
        const w = [1, 3, 0.5][i % 3]!;
        return sum + (1 - t) * v + (1 + (w - 1) * t) * Math.log1p(Math.exp(-v));
      }, 0),
      weight: 6,
    }),
  },
  'an output as loss': {
    loss: 'output',
    shape: [2, 3],
    reference: (y) => ({ total: y.reduce((sum, v) => sum + v, 0), weight: 6 }),
  },
};

describe('losses', () => {
  for (const [name, test] of Object.entries(CASES)) {
    it(`${name}, static shapes`, () => check(test, false));
    it(`${name}, symbolic shapes`, () => check(test, true));
  }

  it('stays finite for binary scores far from 0', async () => {
    const test = { ...CASES['binary cross-entropy']!, config: {}, scores: [500, -500, 90, -90, 30, -30] };
    const { model } = lossModel(test, false);
    const session = await sessionOf(model);
    const { total, gradient } = await session.run({
      x: tensors.float32!(test.scores, [2, 3]),
      labels: tensors.float32!([1, 1, 0, 0, 1, 0], [2, 3]),
    });
    await session.release();
    expect(numbers(total)[0]).toBeCloseTo(590, 3);
    // σ(x) − t over six elements
    for (const [i, expected] of [0, -1, 1, 0, 0, 0].entries())
      expect(numbers(gradient)[i]).toBeCloseTo(expected / 6, 6);
  });

  it('reads binary scores before the Sigmoid that ends the model, unless they are said to be scores', () => {
    const reads = (config: Record<string, unknown>, behind = (_: Builder, y: Value) => y): boolean => {
      const model = new Model(new Graph());
      model.opsets.set('', 17);
      const x = model.graph.addInput(new Value({ name: 'x', type: tensorType('float32', ['n', 1, 4, 5]) }));
      const b = new Builder(model);
      const mask = b.op.Sigmoid(x);
      const output = behind(b, mask);
      applyEdit({ label: 'model', graph: model.graph, add: { nodes: b.nodes, at: 'end' } });
      model.graph.addOutput('mask', output);
      const loss = lossById('bce-with-logits').configure(config);
      addObjective(model, loss, new PublicNames(model), new Map());
      return [...output.users].length === 0;
    };
    expect([reads({}), reads({ input: 'logits' })]).toEqual([true, false]);
    expect(reads({}, (b, y) => b.op.Identity(b.op.Cast(y, { to: 'float16' })))).toBe(true);
    const squeezed = (b: Builder, y: Value) => b.op.Squeeze(y, [1]);
    expect(() => reads({}, squeezed)).toThrow(/probabilities.*Squeeze.*input=logits/s);
    expect(reads({ input: 'logits' }, squeezed)).toBe(false);
  });

  it('computes no one-hot and no log-softmax tensor', () => {
    const { model } = lossModel(CASES['causal language model']!, true);
    const big = [...model.graph.nodes()].filter(({ outputs: [y] }) =>
      y?.type?.kind === 'tensor' ? y.type.dtype === 'float64' && y.type.shape?.join() === 'n0,n1,5' : false,
    );
    // Identity is the model; softmax, its scaled copy and the corrected gradient are the loss.
    expect(big.map(({ op }) => op)).toEqual(['Identity', 'Softmax', 'Mul', 'ScatterElements']);
  });

  it('names what is there when an output is not', () => {
    expect(() => lossModel({ ...CASES['an output as loss']!, config: { output: 'nope' } }, false)).toThrow(
      /scores/,
    );
  });

  it('refuses class weights of the wrong number', () => {
    const test = { ...CASES['class weights']!, config: { classWeights: [1, 2] } };
    expect(() => lossModel(test, false)).toThrow(/2 class weights for 5 classes/);
  });
});
