/**
 * A hand-made step target: linear regression y = x·w, loss = mean (y − t)², momentum m' = 0.9 m + g, w' = w − lr m'.
 * Small enough to be computed by hand in the tests.
 */

import { type StepManifest, stepManifestSchema } from '../../passes/targets/manifest.js';
import type { TrainArtifacts } from '../../runtime/artifacts.js';
import { tensorOfNumbers } from '../../runtime/host-tensor.js';
import { type TinyNode, tinyModel } from './tiny.js';

const scalar = ['float32', []] as const;
const vector = ['float32', [3]] as const;
const batch = { x: ['float32', ['batch', 3]], t: ['float32', ['batch']] } as const;

const forward: TinyNode[] = [
  { op: 'MatMul', in: ['x', 'w'], out: ['pred'] },
  { op: 'Sub', in: ['pred', 't'], out: ['e'] },
  { op: 'Mul', in: ['e', 'e'], out: ['ee'] },
  { op: 'ReduceMean', in: ['ee'], out: ['loss'], attrs: { keepdims: 0 } },
  { op: 'Size', in: ['e'], out: ['count'] },
  { op: 'Cast', in: ['count'], out: ['weight'], attrs: { to: 1 } },
];
/** Σ 2 e x, the gradient of loss × weight. */
const backward: TinyNode[] = [
  { op: 'MatMul', in: ['e', 'x'], out: ['ex'] },
  { op: 'Add', in: ['ex', 'ex'], out: ['gsum.batch'] },
];
const update: TinyNode[] = [
  { op: 'Mul', in: ['m', 'momentum'], out: ['decayed'] },
  { op: 'Add', in: ['decayed', 'g'], out: ['m.next'] },
  { op: 'Mul', in: ['m.next', 'lr'], out: ['delta'] },
  { op: 'Sub', in: ['w', 'delta'], out: ['w.next'] },
  { op: 'ReduceL2', in: ['g'], out: ['grad_norm'], attrs: { keepdims: 0 } },
];
const initializers = { momentum: tensorOfNumbers('float32', [], [0.9]) };

export function regression(accumulation = 1): TrainArtifacts {
  const step = tinyModel({
    inputs: { ...batch, w: vector, m: vector, lr: scalar },
    outputs: { loss: scalar, weight: scalar, grad_norm: scalar, 'w.next': vector, 'm.next': vector },
    initializers,
    nodes: [...forward, ...backward, { op: 'Div', in: ['gsum.batch', 'weight'], out: ['g'] }, ...update],
  });
  const grad = tinyModel({
    inputs: { ...batch, w: vector, gsum: vector, wsum: scalar },
    outputs: { loss: scalar, weight: scalar, 'gsum.next': vector, 'wsum.next': scalar },
    nodes: [
      ...forward,
      ...backward,
      { op: 'Add', in: ['gsum', 'gsum.batch'], out: ['gsum.next'] },
      { op: 'Add', in: ['wsum', 'weight'], out: ['wsum.next'] },
    ],
  });
  const updateGraph = tinyModel({
    inputs: { w: vector, m: vector, gsum: vector, wsum: scalar, lr: scalar },
    outputs: { grad_norm: scalar, 'w.next': vector, 'm.next': vector },
    initializers,
    nodes: [{ op: 'Div', in: ['gsum', 'wsum'], out: ['g'] }, ...update],
  });
  const evaluation = tinyModel({
    inputs: { ...batch, w: vector },
    outputs: { loss: scalar, weight: scalar },
    nodes: forward,
  });
  return {
    manifest: manifestOf(accumulation),
    graphs: accumulation === 1 ? { step, eval: evaluation } : { grad, update: updateGraph, eval: evaluation },
    record: {
      version: 2,
      entries: [{ method: 'test', config: {} }],
      base: 'sha256:base',
      seed: 0,
      sites: [
        {
          entry: 0,
          path: 'layer',
          kind: 'linear',
          config: {},
          params: {
            w: {
              key: 'layer.w',
              name: 'w',
              shape: [3],
              dtype: 'float32',
              trainable: true,
              group: 'default',
              lrScale: 1,
              weightDecay: true,
            },
          },
        },
      ],
    },
    initial: new Map([['layer.w', tensorOfNumbers('float32', [3], [0.1, -0.2, 0.3])]]),
  };
}

function manifestOf(accumulation: number): StepManifest {
  const carried = (input: string, shape: number[]) => ({
    input,
    output: `${input}.next`,
    shape,
    dtype: 'float32',
    init: 0,
    members: shape.length === 0 ? [] : [{ key: 'layer.w', offset: 0, count: 3 }],
  });
  const ins = ['x', 't'];
  const graphs =
    accumulation === 1
      ? {
          step: {
            file: 'step.onnx',
            inputs: [...ins, 'w', 'm', 'lr'],
            outputs: ['loss', 'weight', 'grad_norm', 'w.next', 'm.next'],
          },
        }
      : {
          grad: {
            file: 'grad.onnx',
            inputs: [...ins, 'w', 'gsum', 'wsum'],
            outputs: ['loss', 'weight', 'gsum.next', 'wsum.next'],
          },
          update: {
            file: 'update.onnx',
            inputs: ['w', 'm', 'gsum', 'wsum', 'lr'],
            outputs: ['grad_norm', 'w.next', 'm.next'],
          },
        };
  return stepManifestSchema.parse({
    schemaVersion: 1,
    base: { digest: 'sha256:base' },
    graphs: { ...graphs, eval: { file: 'eval.onnx', inputs: [...ins, 'w'], outputs: ['loss', 'weight'] } },
    batch: [
      { name: 'x', dtype: 'float32', shape: ['batch', 3], role: 'input' },
      { name: 't', dtype: 'float32', shape: ['batch'], role: 'label' },
    ],
    params: [
      {
        key: 'layer.w',
        input: 'w',
        output: 'w.next',
        shape: [3],
        dtype: 'float32',
        modelDtype: 'float32',
        group: 'default',
        weightDecay: true,
        lrScale: 1,
      },
    ],
    untrained: [],
    optimizer: { id: 'sgd', config: { momentum: 0.9 }, state: [{ ...carried('m', [3]), slot: 'm' }] },
    scalars: [{ name: 'lr', dtype: 'float32', role: 'lr' }],
    outputs: { loss: 'loss', weight: 'weight', gradNorm: 'grad_norm', metrics: [], model: [] },
    loss: { id: 'mse', config: {}, perplexity: false },
    schedule: { id: 'constant', learningRate: 0.05 },
    clipping: null,
    accumulation:
      accumulation === 1
        ? null
        : { steps: accumulation, tensors: [carried('gsum', [3])], weight: carried('wsum', []) },
    dropout: 0,
    precision: { params: 'float32', model: 'float32' },
    adapter: { entries: [{ method: 'test', config: {} }], sites: ['layer'] },
  });
}

/** The same training in float64 plain JavaScript. */
export function referenceLosses(
  batches: readonly (readonly { x: readonly number[]; t: number }[])[],
  lr: (step: number) => number,
): number[] {
  const w = [0.1, -0.2, 0.3];
  const m = [0, 0, 0];
  return batches.map((rows, i) => {
    const g = [0, 0, 0];
    let loss = 0;
    for (const { x, t } of rows) {
      const e = x.reduce((sum, value, j) => sum + value * w[j]!, 0) - t;
      loss += (e * e) / rows.length;
      x.forEach((value, j) => {
        g[j]! += (2 * e * value) / rows.length;
      });
    }
    for (let j = 0; j < 3; j++) {
      m[j] = 0.9 * m[j]! + g[j]!;
      w[j]! -= lr(i + 1) * m[j]!;
    }
    return loss;
  });
}
