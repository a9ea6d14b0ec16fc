/** Training graphs run in ONNX Runtime by nothing but their manifest. */
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { insert } from '../../passes/insert/insert.js';
import { defineLoss } from '../../passes/losses/index.js';
import { defineOptimizer } from '../../passes/optimizers/index.js';
import { emitAdapted } from '../../passes/targets/adapted.js';
import { stepManifestSchema } from '../../passes/targets/manifest.js';
import { emitStep, type StepOptions } from '../../passes/targets/step.js';
import { randomStream } from '../../src/initializer.js';
import type { Model } from '../../src/model.js';
import { encodeModel, readModel } from '../../src/onnx/index.js';
import { numbers, runModel } from '../helpers/run.js';
import { type Batch, Driver, float32, int64 } from './driver.js';
import { CLASSES, IN, mlp } from './mlp.js';

const open: Driver[] = [];
async function drive(model: Model, options: StepOptions): Promise<Driver> {
  const driver = await Driver.open(model, emitStep(model, options));
  open.push(driver);
  return driver;
}
afterEach(async () => {
  for (const driver of open.splice(0)) await driver.close();
});

/** Points labelled by the largest of their first coordinates; `ignore` of the labels do not count. */
function batchOf(rows: number, seed: number, ignore = 0): Batch {
  const random = randomStream(seed, 'batch');
  const x = Array.from({ length: rows * IN }, () => 2 * random() - 1);
  const labels = Array.from({ length: rows }, (_, i) => {
    const row = x.slice(i * IN, i * IN + CLASSES);
    return i < ignore ? -100 : row.indexOf(Math.max(...row));
  });
  return { x: float32(x, [rows, IN]), labels: int64(labels) };
}

function concat(batches: readonly Batch[]): Batch {
  const x = batches.flatMap((batch) => numbers(batch.x));
  const labels = batches.flatMap((batch) => numbers(batch.labels));
  return { x: float32(x, [labels.length, IN]), labels: int64(labels) };
}

const params = (driver: Driver): number[][] =>
  driver.manifest.params.map(({ input }) => numbers(driver.carried.get(input)));

function distance(a: readonly number[][], b: readonly number[][]): number {
  return Math.max(...a.flatMap((list, i) => list.map((v, j) => Math.abs(v - b[i]![j]!))));
}

const LOSS = { loss: 'classification' } as const;

/** Operators with kernels in ONNX Runtime's CPU, CUDA and native WebGPU providers, of which these graphs may use any. */
const PORTABLE = new Set(
  (
    'Abs Add And Cast Clip Concat Div Equal Exp Expand Gather GatherElements Gemm Greater GreaterOrEqual Identity Less ' +
    'LessOrEqual Log MatMul Max Min Mul Neg Not Pow Range Reciprocal ReduceMax ReduceMean ReduceSum ReduceSumSquare ' +
    'Reshape ScatterElements Sigmoid Slice Softmax Softplus Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where ' +
    // Run on the CPU wherever the graph runs: they compute sizes.
    'Shape ReduceProd'
  ).split(' '),
);

describe('step target', () => {
  it.each([
    ['adamw', 0.02, 'batch'],
    ['sgd', 0.5, 32],
  ])('trains with %s', async (optimizer, lr, batch) => {
    const driver = await drive(mlp({ fresh: true, batch }), { ...LOSS, optimizer, clip: 5 });
    const held = await driver.run('eval', batchOf(32, 99));
    for (let t = 0; t < 60; t++) await driver.step(batchOf(32, t), lr);
    const after = await driver.run('eval', batchOf(32, 99));
    expect(numbers(held.loss)[0]).toBeGreaterThan(1);
    expect(numbers(after.loss)[0]).toBeLessThan(0.45);
    expect(numbers(after.correct)[0]).toBeGreaterThan(26);
    expect(after.logits?.dims).toEqual([32, CLASSES]);
  });

  it('leaves the adapted model alone and says everything in the manifest', () => {
    const model = mlp();
    const before = encodeModel(model);
    const {
      manifest,
      step,
      eval: evaluation,
    } = emitStep(model, { ...LOSS, gradients: true, evalOutputs: 'all' });
    expect(encodeModel(model)).toEqual(before);
    expect(stepManifestSchema.parse(JSON.parse(JSON.stringify(manifest)))).toEqual(manifest);
    expect(step?.graph.inputs.map(({ name }) => name)).toEqual(manifest.graphs.step?.inputs);
    expect(manifest.graphs.eval.inputs).toEqual([
      'x',
      ...manifest.params.map(({ input }) => input),
      'labels',
    ]);
    expect(manifest.batch).toEqual([
      { name: 'x', dtype: 'float32', shape: ['batch', IN], role: 'input' },
      { name: 'labels', dtype: 'int64', shape: ['batch'], role: 'label', padding: -100 },
    ]);
    expect(manifest.outputs.model.map(({ name }) => name)).toEqual(['logits', 'hidden']);
    expect(manifest.optimizer.state.map(({ slot, shape }) => [slot, shape])).toEqual([
      ['m', [78]],
      ['v', [78]],
    ]);
    expect(evaluation.graph.outputs.map(({ name }) => name)).toEqual(manifest.graphs.eval.outputs);
  });

  it('emits the same bytes twice', () => {
    const emit = () => emitStep(mlp(), LOSS);
    expect(encodeModel(emit().step!)).toEqual(encodeModel(emit().step!));
  });

  it('uses standard operators only', () => {
    const { step } = emitStep(mlp({ dropout: 0.5 }), { ...LOSS, clip: 1 });
    expect([...step!.graph.nodes()].filter(({ domain }) => domain !== '')).toEqual([]);
    expect([...step!.opsets.keys()]).toEqual(['']);
  });

  it.each(['classification', 'mse', 'bce-with-logits'])(
    'adds only operators that run on CPU, CUDA and WebGPU alike (%s)',
    (loss) => {
      for (const accumulation of [1, 2]) {
        const { step, grad, update } = emitStep(mlp({ dropout: 0.5 }), { loss, clip: 1, accumulation });
        const made = [step, grad, update].flatMap((model) =>
          model === undefined
            ? []
            : [...model.graph.nodes()].filter(({ provenance = '' }) =>
                /^(loss|dropout|update|accumul)/.test(provenance),
              ),
        );
        expect(made.length).toBeGreaterThan(20);
        expect(made.map(({ op }) => op).filter((op) => !PORTABLE.has(op))).toEqual([]);
      }
    },
  );

  it("takes losses and optimizers of one's own", async () => {
    const loss = defineLoss({
      id: 'mean-square-logit',
      summary: 'Pulls scores to zero',
      config: z.strictObject({ factor: z.number().default(1) }),
      build: ({ b, output }, { factor }) => ({
        total: b.op.Mul(b.op.ReduceSumSquare(output('logits'), { keepdims: 0 }), factor),
        weight: b.scalar(CLASSES),
      }),
    });
    const optimizer = defineOptimizer({
      id: 'sign',
      summary: 'Steps of the learning rate',
      config: z.strictObject({}),
      slots: () => [{ name: 'calls', init: 3 }],
      formula:
        (op) =>
        ({ param, gradient, state, lr }) => ({
          param: op.Sub(param, op.Mul(op.Sign(gradient), lr)),
          state: { calls: op.Add(state.calls!, 1) },
        }),
    });
    const driver = await drive(mlp(), { loss, lossConfig: { factor: 3 }, optimizer });
    expect(driver.manifest.loss).toEqual({
      id: 'mean-square-logit',
      config: { factor: 3 },
      perplexity: false,
    });
    const before = params(driver);
    const { x } = batchOf(4, 1);
    const first = numbers((await driver.step({ x: x! }, 0.01)).loss)[0]!;
    expect(distance(params(driver), before)).toBeCloseTo(0.01, 6);
    for (let t = 0; t < 20; t++) await driver.step({ x: x! }, 0.01);
    expect(numbers((await driver.run('eval', { x: x! })).loss)[0]).toBeLessThan(first / 2);
    expect(new Set(numbers(driver.carried.get('sign.calls.0')))).toEqual(new Set([24]));
  });

  it('clips by the global norm as torch.nn.utils.clip_grad_norm_', async () => {
    const options = { ...LOSS, optimizer: 'sgd', gradients: true };
    for (const clip of [0.05, 100]) {
      const driver = await drive(mlp(), { ...options, clip });
      const before = params(driver);
      const outputs = await driver.step(batchOf(8, 1), 1);
      const gradients = driver.manifest.params.map(({ gradient }) => numbers(outputs[gradient!]));
      const norm = Math.hypot(...gradients.flat());
      expect(numbers(outputs.grad_norm)[0]).toBeCloseTo(norm, 5);
      const factor = Math.min(1, clip / (norm + 1e-6));
      expect(factor < 1).toBe(clip === 0.05);
      const expected = before.map((list, i) => list.map((v, j) => v - factor * gradients[i]![j]!));
      expect(distance(params(driver), expected)).toBeLessThan(1e-6);
    }
  });

  it('scales learning rates and switches decay off by group', async () => {
    const driver = await drive(mlp(), {
      ...LOSS,
      optimizer: 'sgd',
      optimizerConfig: { weightDecay: 0.1 },
      gradients: true,
      groups: { B: { lrScale: 4, weightDecay: false } },
    });
    const before = params(driver);
    const outputs = await driver.step(batchOf(8, 1), 0.5);
    const expected = driver.manifest.params.map(({ gradient, group }, i) => {
      const g = numbers(outputs[gradient!]);
      const [lr, decay] = group === 'B' ? [2, 0] : [0.5, 0.1];
      return before[i]!.map((v, j) => v - lr * (g[j]! + decay * v));
    });
    expect(distance(params(driver), expected)).toBeLessThan(1e-6);
    expect(() => emitStep(mlp(), { ...LOSS, groups: { C: {} } })).toThrow(/There are: default, B/);
  });

  it('accumulates micro-batches of unequal weight to the step of one big batch', async () => {
    const micro = [batchOf(4, 1), batchOf(6, 2, 4), batchOf(3, 3, 1)];
    const options = { ...LOSS, clip: 0.1 };
    const big = await drive(mlp(), options);
    const small = await drive(mlp(), { ...options, accumulation: 3 });
    expect(small.manifest.graphs.step).toBeUndefined();
    for (let t = 0; t < 3; t++) {
      const one = await big.step(concat(micro), 0.01);
      const three = await small.step(micro, 0.01);
      expect(numbers(three.grad_norm)[0]).toBeCloseTo(numbers(one.grad_norm)[0]!, 5);
    }
    expect(distance(params(small), params(big))).toBeLessThan(1e-5);
  });

  it('updates large parameters on their own with the same result', async () => {
    const flat = await drive(mlp(), LOSS);
    const own = await drive(mlp(), { ...LOSS, flatLimit: 0 });
    expect(own.manifest.optimizer.state).toHaveLength(8);
    for (let t = 0; t < 3; t++) for (const driver of [flat, own]) await driver.step(batchOf(8, t), 0.01);
    expect(distance(params(flat), params(own))).toBeLessThan(1e-6);
  });

  it('drops out in training only, as the seed says', async () => {
    const driver = await drive(mlp({ dropout: 0.5 }), LOSS);
    expect(driver.manifest.dropout).toBeCloseTo(0.5);
    const lossAt = async (seed: number) => numbers((await driver.step(batchOf(16, 1), 0, seed)).loss)[0]!;
    const first = await lossAt(7);
    expect(await lossAt(7)).toBe(first);
    expect(await lossAt(8)).not.toBe(first);
    const plain = await drive(mlp(), LOSS);
    const expected = numbers((await plain.run('eval', batchOf(16, 1))).loss)[0]!;
    expect(numbers((await driver.run('eval', batchOf(16, 1))).loss)[0]).toBe(expected);
    const off = await drive(mlp({ dropout: 0.5 }), { ...LOSS, dropout: 0 });
    expect(off.manifest.scalars.map(({ role }) => role)).toEqual(['lr', 'step']);
    expect(numbers((await off.step(batchOf(16, 1), 0)).loss)[0]).toBeCloseTo(expected, 6);
  });

  it('keeps clear of names the model has', async () => {
    const driver = await drive(mlp({ hiddenName: 'loss' }), LOSS);
    expect(driver.manifest.outputs.loss).toBe('loss_2');
    const { loss_2: loss } = await driver.step(batchOf(4, 1), 0.1);
    expect(loss?.dims).toEqual([]);
  });

  it('says which parameters the loss does not reach', () => {
    const { manifest, step } = emitStep(mlp(), { loss: 'mse', lossConfig: { output: 'hidden' } });
    expect(manifest.untrained).toEqual(['fc2.lora_A', 'fc2.lora_B']);
    expect(manifest.params.map(({ key }) => key)).toEqual(['fc1.lora_A', 'fc1.lora_B']);
    expect(step?.graph.inputs.map(({ name }) => name)).not.toContain('fc2.lora_A');
  });

  it.each([
    [{ clip: 0 }, /clip is 0. Give a norm above 0/],
    [{ dropout: 1 }, /dropout is 1/],
    [{ accumulation: 1.5 }, /accumulation is 1.5/],
    [{ lossScale: Number.NaN }, /lossScale is NaN/],
    [{ schedule: { id: 'linear', learningRate: -1 } }, /schedule/],
    [{ optimizer: 'lion' }, /no optimizer 'lion'/],
    [{ lossConfig: { labelSmoothing: 2 } }, /labelSmoothing/],
  ])('refuses %o', (options, message) => {
    expect(() => emitStep(mlp(), { ...LOSS, ...options })).toThrow(message);
    expect(() => emitStep(mlp(), { ...LOSS, ...options })).toThrow(
      expect.objectContaining({ code: 'E_USAGE' }),
    );
  });

  it('refuses models without an adapter', () => {
    const model = mlp();
    model.metadata.clear();
    expect(() => emitStep(model, LOSS)).toThrow(/holds no adapter/);
  });
});

describe('adapted target', () => {
  it('computes the same with adapters as weights and as inputs', async () => {
    const model = mlp({ dropout: 0.3 });
    const { x } = batchOf(5, 1);
    const expected = numbers(
      (await runModel(emitAdapted(model, { adapterIo: 'weights' }), { x: x! })).logits,
    );
    const served = emitAdapted(model, { adapterIo: 'inputs' });
    expect(served.graph.inputs.map(({ name }) => name)).toEqual([
      'x',
      'fc1.lora_A',
      'fc1.lora_B',
      'fc2.lora_A',
      'fc2.lora_B',
    ]);
    const driver = await drive(model, LOSS);
    const feeds = {
      x: x!,
      ...Object.fromEntries([...driver.carried].filter(([name]) => name.includes('lora'))),
    };
    expect(numbers((await runModel(served, feeds)).logits)).toEqual(expected);
    const other = { ...feeds, 'fc2.lora_B': float32(new Array<number>(2 * CLASSES).fill(0.5), [2, CLASSES]) };
    expect(numbers((await runModel(served, other)).logits)).not.toEqual(expected);
  });
});

describe('half precision', () => {
  it('trains float32 copies of float16 adapters, and scales the loss', async () => {
    const model = readModel(join(import.meta.dirname, '../../fixtures/models/bert.ts.fp16.onnx'));
    insert(model, { method: 'lora', config: { rank: 4 }, targeting: { targets: ['query', 'value'] } });
    const batch: Batch = {
      input_ids: int64(
        Array.from({ length: 16 }, (_, i) => (i * 7) % 50),
        [2, 8],
      ),
      attention_mask: int64(new Array<number>(16).fill(1), [2, 8]),
      token_type_ids: int64(new Array<number>(16).fill(0), [2, 8]),
      labels: int64([0, 1]),
    };
    const driver = await drive(model, { ...LOSS, gradients: true });
    const plain = await drive(model, { ...LOSS, gradients: true, lossScale: 1 });
    expect(driver.manifest.precision).toEqual({ params: 'float32', model: 'float16' });
    expect(
      driver.manifest.params.every(
        ({ dtype, modelDtype }) => dtype === 'float32' && modelDtype === 'float16',
      ),
    ).toBe(true);
    const [scaled, unscaled] = [await driver.step(batch, 0), await plain.step(batch, 0)];
    const { gradient } = driver.manifest.params.find(({ key }) => key.endsWith('lora_B'))!;
    const [a, b] = [numbers(scaled[gradient!]), numbers(unscaled[gradient!])];
    expect(Math.hypot(...a)).toBeGreaterThan(0);
    // Half precision has 11 bits; the factor itself cancels.
    expect(Math.hypot(...a.map((v, i) => v - b[i]!))).toBeLessThan(0.02 * Math.hypot(...a));
    const first = numbers((await driver.step(batch, 0.01)).loss)[0]!;
    for (let t = 0; t < 5; t++) await driver.step(batch, 0.01);
    expect(numbers((await driver.run('eval', batch)).loss)[0]).toBeLessThan(first / 2);
  });
});
