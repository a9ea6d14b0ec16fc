/** What methods bring to training, against plain arithmetic: penalties, frozen tensors, barriers, rates, procedures. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { attachAdapter } from '../../passes/insert/insert.js';
import type { Method } from '../../passes/methods/contract/method.js';
import { emitAdapted } from '../../passes/targets/adapted.js';
import type { StepOptions } from '../../passes/targets/step.js';
import { modelTensors, readAdapter } from '../../runtime/adapter-file.js';
import { loadArtifacts, type TrainArtifacts } from '../../runtime/artifacts.js';
import { type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from '../../runtime/host-tensor.js';
import { datasetOf } from '../../runtime/library/dataset.js';
import { emit } from '../../runtime/library/emit.js';
import { insert } from '../../runtime/library/insert.js';
import { openModel } from '../../runtime/model-session.js';
import { SessionHost } from '../../runtime/session.js';
import { loadCheckpoint } from '../../runtime/train/checkpoint.js';
import { Stepper } from '../../runtime/train/stepper.js';
import { train } from '../../runtime/train/train.js';
import {
  type Params,
  plainStep,
  plainUpdate,
  type Row,
  rows,
  shiftMethod,
  twoLayers,
  WIDTHS,
} from './plain.js';

const folder = mkdtempSync(join(tmpdir(), 'in-training-'));
afterAll(() => rmSync(folder, { recursive: true }));

const MAX_NORM = 0.9;
const LR = 0.1;

async function artifactsOf(method: Method, options: Partial<StepOptions> = {}): Promise<TrainArtifacts> {
  const model = twoLayers();
  await insert(model, { method, targeting: { targets: ['fc1', 'fc2'] } });
  return emit(model, {
    target: 'step',
    loss: 'mse',
    optimizer: 'sgd',
    clip: MAX_NORM,
    methods: [method],
    schedule: { id: 'constant', learningRate: LR },
    ...options,
  });
}

function feeds(batch: readonly Row[]): Record<string, HostTensor> {
  return {
    x: tensorOfNumbers(
      'float32',
      [batch.length, WIDTHS[0]],
      batch.flatMap(({ x }) => x),
    ),
    labels: tensorOfNumbers(
      'float32',
      [batch.length, WIDTHS[2]],
      batch.flatMap(({ t }) => t),
    ),
  };
}

/** Trained parameters as numbers. */
function plain(tensors: ReadonlyMap<string, HostTensor>): Params {
  return Object.fromEntries([...tensors].map(([key, tensor]) => [key, [...numbersOf(tensor)]]));
}

/** float32 sums of a few dozen terms of size 1. */
function close(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string) {
  expect(actual.length, what).toBe(expected.length);
  for (let i = 0; i < expected.length; i++)
    expect(Math.abs(actual[i]! - expected[i]!), `${what} ${i}`).toBeLessThan(5e-6);
}

/** Splits a batch of eight into micro-batches of unequal weight. */
const SPLITS = { whole: [8], unequal: [5, 1, 2] } as const;

describe.each(['whole', 'unequal'] as const)('training on batches that are %s', (split) => {
  const sizes = SPLITS[split];
  // All parameters in flat tensors, or each on its own.
  it.each([undefined, 1])('equals plain arithmetic, flat up to %s elements', async (flatLimit) => {
    const reads = ['d', 'u'];
    const method = shiftMethod(() => ({ gradients: reads, writes: [], afterStep: () => {} }));
    const artifacts = await artifactsOf(method, {
      accumulation: sizes.length,
      ...(flatLimit === undefined ? {} : { flatLimit }),
    });
    const { manifest } = artifacts;
    expect(manifest.params.map(({ key, lrScale }) => [key, lrScale])).toEqual([
      ['fc1.d', 1],
      ['fc1.u', 3],
      ['fc2.d', 1],
      ['fc2.u', 3],
    ]);
    const stepper = new Stepper(artifacts);
    try {
      await stepper.load(artifacts.initial);
      const keys = manifest.params.map(({ key }) => key);
      stepper.watch(keys);
      const expected = plain(await stepper.params());
      for (let step = 1; step <= 4; step++) {
        const batch = rows(8 * step).slice(-8);
        const rest = [...batch];
        const micro = sizes.map((size) => feeds(rest.splice(0, size)));
        const result = await stepper.step(micro, { lr: LR, step, seeds: sizes.map(() => 0) });
        const { loss, gradients } = plainStep(expected, batch);
        close([result.loss], [loss], 'loss');
        const factor = plainUpdate(expected, gradients, LR, MAX_NORM);
        // The first steps are clipped, or the test says nothing about it.
        if (step === 1) expect(factor).toBeLessThan(1);
        const found = await stepper.gradients(keys);
        for (const key of keys)
          close(
            found.get(key)!,
            gradients[key]!.map((g) => g * factor),
            `gradient of ${key}`,
          );
        const params = await stepper.params();
        for (const key of keys) close(numbersOf(params.get(key)!), expected[key]!, key);
      }
      // Evaluation measures the task.
      const batch = rows(3);
      const { loss } = await stepper.evaluate(feeds(batch));
      close([loss], [plainStep(expected, batch).task], 'evaluation');
    } finally {
      await stepper.close();
    }
  });
});

describe('frozen tensors of a method', () => {
  it('go through graphs, files and training unchanged, indices too', async () => {
    const method = shiftMethod();
    const out = join(folder, 'frozen');
    const model = twoLayers();
    await insert(model, { method, targeting: { targets: ['fc1', 'fc2'] } });
    await emit(model, {
      target: 'step',
      loss: 'mse',
      optimizer: 'sgd',
      methods: [method],
      out: join(out, 'step'),
    });
    const artifacts = await loadArtifacts(join(out, 'step'));
    const data = datasetOf(rows(8).map(({ x, t }) => ({ x, labels: t })));
    const result = await train({ artifacts, data, out, methods: [method], maxSteps: 3, batchSize: 4 });
    expect([...result.params.keys()]).toEqual(['fc1.d', 'fc1.u', 'fc2.d', 'fc2.u']);
    const adapter = await readAdapter(result.adapter ?? '');
    const perm = await loadTensor(adapter.tensors.get('fc1.perm')!);
    expect(perm.dtype).toBe('int64');
    expect([...numbersOf(perm)]).toEqual([3, 2, 1, 0]);
    expect([...numbersOf(await loadTensor(adapter.tensors.get('fc2.s')!))]).toEqual([1.5, 1.5]);
    expect(result.trainable).toBe(2 * (4 + 2));
    expect(result.stored).toBe(4 * (4 + 2));

    const trained = twoLayers();
    attachAdapter(trained, adapter.record, await modelTensors(adapter), { methods: [method] });
    const host = new SessionHost();
    try {
      const x = feeds(rows(5)).x!;
      const whole = await openModel(host, emitAdapted(trained, { adapterIo: 'weights' }));
      const served = await openModel(host, emitAdapted(trained, { adapterIo: 'inputs' }));
      expect(served.session.inputs.map(({ name }) => name)).toEqual([
        'x',
        'fc1.d',
        'fc1.u',
        'fc2.d',
        'fc2.u',
      ]);
      const stepper = new Stepper(artifacts);
      await stepper.load(result.params);
      const { outputs } = await stepper.evaluate(feeds(rows(5)), ['logits']);
      await stepper.close();
      const [a] = Object.values(await whole.session.run({ x }));
      const [b] = Object.values(await served.session.run({ x, ...Object.fromEntries(result.params) }));
      close(numbersOf(a!), numbersOf(outputs.logits!), 'logits');
      expect(numbersOf(b!)).toEqual(numbersOf(a!));
    } finally {
      await host.close();
    }
  });
});

describe('a procedure', () => {
  /** Halves d and counts steps; d of one layer alone is never touched by anything else it is not told to write. */
  const counting = () =>
    shiftMethod(() => ({
      gradients: [],
      writes: ['d'],
      afterStep: ({ step, total, params }, state) => {
        expect(total).toBe(4);
        expect(params.map(({ key, role, site }) => [key, role, site])).toEqual([
          ['fc1.d', 'd', 'fc1'],
          ['fc2.d', 'd', 'fc2'],
        ]);
        state.set('steps', Float32Array.of((state.get('steps')?.[0] ?? 0) + 1));
        expect(state.get('steps')?.[0]).toBe(step);
        for (const { data } of params) data[0] = step;
      },
    }));

  it('writes parameters that live with the session, and remembers through checkpoints', async () => {
    const method = counting();
    const artifacts = await artifactsOf(method);
    expect(artifacts.manifest.params.every(({ gradient }) => gradient === undefined)).toBe(true);
    const data = datasetOf(rows(8).map(({ x, t }) => ({ x, labels: t })));
    const out = join(folder, 'procedure');
    const run = { artifacts, data, methods: [method], maxSteps: 4, batchSize: 4, checkpointEvery: 1, out };
    const controller = new AbortController();
    await train({
      ...run,
      signal: controller.signal,
      onEvent: (event) => event.type === 'step' && event.step === 2 && controller.abort(),
    });
    const result = await train({ ...run, resume: true });
    for (const key of ['fc1.d', 'fc2.d']) expect(numbersOf(result.params.get(key)!)[0]).toBe(4);
    const { procedures } = await loadCheckpoint(result.checkpoint ?? '');
    expect([...procedures.keys()]).toEqual(['0/steps']);
    expect(numbersOf(procedures.get('0/steps')!)[0]).toBe(4);
  });

  it('needs the method that the record names', async () => {
    const method = counting();
    const model = twoLayers();
    await insert(model, { method, targeting: { targets: ['fc1'] } });
    await expect(emit(model, { target: 'step', loss: 'mse' })).rejects.toThrow(/no method 'shift'/);
    const artifacts = await artifactsOf(method);
    const data = datasetOf(rows(8).map(({ x, t }) => ({ x, labels: t })));
    await expect(train({ artifacts, data, out: join(folder, 'unknown') })).rejects.toThrow(
      /no method 'shift'/,
    );
  });

  it('needs graphs that give the gradients it reads', async () => {
    const silent = shiftMethod(() => ({ gradients: [], writes: [], afterStep: () => {} }));
    const reading = shiftMethod(() => ({ gradients: ['d'], writes: [], afterStep: () => {} }));
    const artifacts = await artifactsOf(silent);
    const data = datasetOf(rows(8).map(({ x, t }) => ({ x, labels: t })));
    await expect(train({ artifacts, data, methods: [reading], out: join(folder, 'blind') })).rejects.toThrow(
      /no gradient of 'fc1.d'/,
    );
  });
});
