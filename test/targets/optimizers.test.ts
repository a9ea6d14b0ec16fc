/** Optimizer formulas against PyTorch's definitions, written out in float64. */
import ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { applyEdit } from '../../passes/edit.js';
import { optimizerById } from '../../passes/optimizers/index.js';
import { Graph, Value } from '../../src/graph.js';
import { randomStream } from '../../src/initializer.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, tensorType } from '../../src/types.js';
import { numbers, sessionOf } from '../helpers/run.js';

type Vector = readonly number[];
type Reference = (p: number[], g: Vector, state: Record<string, number[]>, lr: number, t: number) => void;

/** `_single_tensor_adamw` of torch/optim/adamw.py. */
const torchAdamW =
  (c: { beta1: number; beta2: number; eps: number; weightDecay: number }): Reference =>
  (p, g, { m, v }, lr, t) => {
    for (let i = 0; i < p.length; i++) {
      p[i]! *= 1 - lr * c.weightDecay;
      m![i]! += (g[i]! - m![i]!) * (1 - c.beta1);
      v![i] = v![i]! * c.beta2 + g[i]! * g[i]! * (1 - c.beta2);
      const stepSize = lr / (1 - c.beta1 ** t);
      const denominator = Math.sqrt(v![i]!) / Math.sqrt(1 - c.beta2 ** t) + c.eps;
      p[i]! -= (stepSize * m![i]!) / denominator;
    }
  };

/** `_single_tensor_sgd` of torch/optim/sgd.py. */
const torchSgd =
  (c: { momentum: number; dampening: number; nesterov: boolean; weightDecay: number }): Reference =>
  (p, g, { momentum: buffer }, lr, t) => {
    for (let i = 0; i < p.length; i++) {
      let d = g[i]! + c.weightDecay * p[i]!;
      if (c.momentum !== 0) {
        buffer![i] = t === 1 ? d : buffer![i]! * c.momentum + (1 - c.dampening) * d;
        d = c.nesterov ? d + c.momentum * buffer![i]! : buffer![i]!;
      }
      p[i]! -= lr * d;
    }
  };

async function compare(
  id: string,
  config: Record<string, unknown>,
  reference: Reference,
  dtype: 'float32' | 'float64',
  weightDecay = true,
): Promise<number> {
  const optimizer = optimizerById(id).configure(config);
  const model = new Model(new Graph());
  model.opsets.set('', 17);
  const input = (name: string, shape: readonly number[], type: DType = dtype): Value =>
    model.graph.addInput(new Value({ name, type: tensorType(type, shape) }));
  const size = 7;
  const [p, g, lr, step] = [input('p', [size]), input('g', [size]), input('lr', []), input('step', [])];
  const state = Object.fromEntries(optimizer.slots.map(({ name }) => [name, input(name, [size])]));
  const b = new Builder(model);
  const out = optimizer.formula(b.op, step)({ param: p, gradient: g, state, lr, weightDecay });
  applyEdit({
    label: 'update',
    graph: model.graph,
    add: { nodes: b.nodes, at: 'end' },
    addInitializers: b.initializers,
  });
  model.graph.addOutput('p_next', out.param);
  for (const [name, value] of Object.entries(out.state)) model.graph.addOutput(`${name}_next`, value);

  const random = randomStream(1, id);
  const array = dtype === 'float64' ? Float64Array : Float32Array;
  const tensor = (data: Vector, dims: number[] = [size]) => new ort.Tensor(dtype, array.from(data), dims);
  let now = Array.from({ length: size }, () => random() - 0.5);
  let nowState = Object.fromEntries(
    optimizer.slots.map(({ name, init }) => [name, new Array<number>(size).fill(init)]),
  );
  const expected = [...now];
  const expectedState = structuredClone(nowState);
  const session = await sessionOf(model);
  let error = 0;
  for (let t = 1; t <= 12; t++) {
    const gradient = Array.from({ length: size }, () => random() - 0.4);
    const rate = 0.1 / t;
    const results = await session.run({
      p: tensor(now),
      g: tensor(gradient),
      lr: tensor([rate], []),
      step: tensor([t], []),
      ...Object.fromEntries(Object.entries(nowState).map(([name, data]) => [name, tensor(data)])),
    } as Record<string, ort.Tensor>);
    now = numbers(results.p_next);
    nowState = Object.fromEntries(
      Object.keys(nowState).map((name) => [name, numbers(results[`${name}_next`])]),
    );
    reference(expected, gradient, expectedState, rate, t);
    for (let i = 0; i < size; i++) error = Math.max(error, Math.abs(now[i]! - expected[i]!));
  }
  await session.release();
  return error;
}

const ADAM = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1 };
const SGD = { momentum: 0, dampening: 0, nesterov: false, weightDecay: 0 };

// Twelve steps of size at most 0.1 each: a few roundings of numbers around 1 per step.
const TOLERANCE = { float64: 1e-13, float32: 12 * 2 ** -22 } as const;

describe('optimizers', () => {
  for (const dtype of ['float64', 'float32'] as const) {
    it.each([
      ['adamw', ADAM, torchAdamW(ADAM)],
      ['adamw', { ...ADAM, beta1: 0, eps: 1e-3 }, torchAdamW({ ...ADAM, beta1: 0, eps: 1e-3 })],
      ['sgd', SGD, torchSgd(SGD)],
      ['sgd', { ...SGD, weightDecay: 0.3 }, torchSgd({ ...SGD, weightDecay: 0.3 })],
      [
        'sgd',
        { ...SGD, momentum: 0.9, dampening: 0.25 },
        torchSgd({ ...SGD, momentum: 0.9, dampening: 0.25 }),
      ],
      [
        'sgd',
        { ...SGD, momentum: 0.8, nesterov: true, weightDecay: 0.05 },
        torchSgd({ ...SGD, momentum: 0.8, nesterov: true, weightDecay: 0.05 }),
      ],
    ])(`%s %o in ${dtype}`, async (id, config, reference) => {
      expect(await compare(id, config, reference, dtype)).toBeLessThan(TOLERANCE[dtype]);
    });
  }

  it('leaves weight decay out where a parameter says so', async () => {
    const without = torchAdamW({ ...ADAM, weightDecay: 0 });
    expect(await compare('adamw', ADAM, without, 'float64', false)).toBeLessThan(TOLERANCE.float64);
    expect(await compare('adamw', ADAM, without, 'float64', true)).toBeGreaterThan(1e-3);
  });

  it('corrects bias to the last digits in float32', async () => {
    // One step from zero moments moves by lr·g/(|g| + ε) = lr exactly; 1 − 0.999 in float32 would be off by 2e-5.
    const config = { beta1: 0.9, beta2: 0.9999, eps: 0, weightDecay: 0 };
    expect(await compare('adamw', config, torchAdamW(config), 'float32')).toBeLessThan(1e-6);
  });

  it('refuses options that do not fit', () => {
    expect(() => optimizerById('sgd').configure({ nesterov: true })).toThrow(/nesterov needs momentum/);
    expect(() => optimizerById('adamw').configure({ beta3: 1 })).toThrow(/beta3/);
    expect(() => optimizerById('adam')).toThrow(/adamw, sgd/);
  });
});
