/**
 * A small net with a method that has everything training knows: a penalty, frozen floats and indices, a barrier for
 * gradients, a factor on the learning rate. And the same training in plain float64 arithmetic.
 *
 * Per layer: y' = y + u ⊙ stop(y) + gather(d ⊙ s, perm); penalty per layer c·½‖d‖², averaged over layers.
 */
import { z } from 'zod';
import { applyEdit } from '../../passes/edit.js';
import { derived } from '../../passes/methods/contract/derived.js';
import { defineMethod } from '../../passes/methods/contract/method.js';
import type { Procedure } from '../../passes/methods/contract/procedure.js';
import { Graph, Value } from '../../src/graph.js';
import { constant, normal, randomStream } from '../../src/initializer.js';
import { tensorOf } from '../../src/literals.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { tensorType } from '../../src/types.js';

export const WIDTHS = [3, 4, 2] as const;
export const PENALTY = 0.8;
export const SCALE = 1.5;
export const U_RATE = 3;

/** Index j reads element `width − 1 − j`; the width is that of the weight [in, width]. */
const reversed = derived(
  (_op, { w }) => w,
  ({ dims }) => BigInt64Array.from({ length: dims[1]! }, (_, i) => BigInt(dims[1]! - 1 - i)),
);

export function shiftMethod(procedure?: () => Procedure) {
  return defineMethod({
    id: 'shift',
    summary: 'A method of the tests',
    paper: { title: 'A test', arxiv: '0000.00000' },
    config: z.strictObject({ penalty: z.number().default(PENALTY) }),
    startsAsBase: false,
    ...(procedure === undefined ? {} : { procedure }),
    sites: {
      linear: {
        params: ({ outDim }) => ({
          d: { shape: [outDim], init: normal(0.5) },
          u: { shape: [outDim], init: normal(0.5), lrScale: U_RATE },
          s: { shape: [outDim], init: constant(SCALE), trainable: false },
          perm: { shape: [outDim], init: reversed, dtype: 'int64', trainable: false },
        }),
        attach: (op, { y }, { d, u, s, perm }, _config, { stopGradient }) => ({
          y: op.Add(op.Add(y, op.Mul(stopGradient(y), u)), op.Gather(op.Mul(d, s), perm)),
        }),
        fold: { impossible: 'it is not for folding' },
        penalty: (op, { d }, { penalty }, sites) =>
          penalty === 0 ? undefined : op.Mul(op.ReduceSumSquare(d, { keepdims: 0 }), penalty / 2 / sites),
      },
    },
  });
}

/** logits = (x W₁) W₂ */
export function twoLayers(): Model {
  const model = new Model(new Graph());
  model.irVersion = 8;
  model.opsets.set('', 17);
  const { graph } = model;
  let value = graph.addInput(new Value({ name: 'x', type: tensorType('float32', ['batch', WIDTHS[0]]) }));
  const b = new Builder(model);
  for (const [i, weight] of weights().entries()) {
    const dims = [WIDTHS[i]!, WIDTHS[i + 1]!];
    const name = `fc${i + 1}.weight`;
    const tensor = tensorOf('float32', dims, weight.flat());
    const stored = graph.addInitializer(new Value({ name, type: tensorType('float32', dims), tensor }));
    value = b.op.MatMul(value, stored);
  }
  applyEdit({ label: 'net', graph, add: { nodes: b.nodes, at: 'end' }, addInitializers: b.initializers });
  graph.addOutput('logits', value);
  return model;
}

function weights(): number[][][] {
  return [0, 1].map((i) => {
    const random = randomStream(7, `weight ${i}`);
    return Array.from({ length: WIDTHS[i]! }, () =>
      Array.from({ length: WIDTHS[i + 1]! }, () => Math.fround(2 * random() - 1)),
    );
  });
}

export interface Row {
  readonly x: readonly number[];
  readonly t: readonly number[];
}

export function rows(count: number): Row[] {
  const random = randomStream(11, 'rows');
  const numbers = (n: number) => Array.from({ length: n }, () => Math.fround(2 * random() - 1));
  return Array.from({ length: count }, () => ({ x: numbers(WIDTHS[0]), t: numbers(WIDTHS[2]) }));
}

/** Parameters by key, `fc1.d`, `fc1.u`, … */
export type Params = Record<string, number[]>;

/** Mean loss with penalty and its gradients. */
export function plainStep(
  params: Params,
  batch: readonly Row[],
): { loss: number; task: number; gradients: Params } {
  const W = weights();
  const gradients = Object.fromEntries(
    Object.entries(params).map(([key, values]) => [key, values.map(() => 0)]),
  );
  const elements = batch.length * WIDTHS[2];
  let task = 0;
  for (const { x, t } of batch) {
    const before: number[][] = [];
    let h: readonly number[] = x;
    for (const [i, w] of W.entries()) {
      const y = w[0]!.map((_, j) => h.reduce((sum, value, k) => sum + value * w[k]![j]!, 0));
      before.push(y);
      const { d, u } = of(params, i);
      h = y.map((value, j) => value * (1 + u[j]!) + d[y.length - 1 - j]! * SCALE);
    }
    let g = h.map((value, j) => (2 * (value - t[j]!)) / elements);
    task += h.reduce((sum, value, j) => sum + (value - t[j]!) ** 2, 0) / elements;
    for (let i = 1; i >= 0; i--) {
      const { d, u } = of(gradients, i);
      g.forEach((value, j) => {
        d[g.length - 1 - j]! += value * SCALE;
        u[j]! += value * before[i]![j]!;
      });
      // Nothing flows through u ⊙ stop(y).
      g = W[i]!.map((row) => row.reduce((sum, value, j) => sum + value * g[j]!, 0));
    }
  }
  let loss = task;
  for (const i of [0, 1]) {
    of(params, i).d.forEach((value, j) => {
      loss += (PENALTY / 4) * value * value;
      of(gradients, i).d[j]! += (PENALTY / 2) * value;
    });
  }
  return { loss, task, gradients };
}

function of(params: Params, layer: number): { d: number[]; u: number[] } {
  return { d: params[`fc${layer + 1}.d`]!, u: params[`fc${layer + 1}.u`]! };
}

/** SGD with clipping by the global norm; returns the factor that clipped. */
export function plainUpdate(params: Params, gradients: Params, lr: number, maxNorm: number): number {
  const norm = Math.sqrt(
    Object.values(gradients)
      .flat()
      .reduce((sum, g) => sum + g * g, 0),
  );
  const factor = Math.min(1, maxNorm / (norm + 1e-6));
  for (const [key, values] of Object.entries(params))
    gradients[key]!.forEach((g, j) => {
      values[j]! -= lr * (key.endsWith('.u') ? U_RATE : 1) * factor * g;
    });
  return factor;
}
