import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readAdapter } from '../../runtime/adapter-file.js';
import { type Dataset, epochOrder } from '../../runtime/data/dataset.js';
import { loadDataset } from '../../runtime/data/load.js';
import { numbersOf } from '../../runtime/host-tensor.js';
import type { TrainEvent } from '../../runtime/train/events.js';
import { readLog } from '../../runtime/train/log.js';
import { persist } from '../../runtime/train/persist.js';
import { learningRate } from '../../runtime/train/schedule.js';
import { train } from '../../runtime/train/train.js';
import { fillNormal, randomStream } from '../../src/initializer.js';
import { refuses } from './refuses.js';
import { referenceLosses, regression } from './regression.js';

const folder = mkdtempSync(join(tmpdir(), 'train-'));
afterAll(() => rmSync(folder, { recursive: true }));
let runs = 0;
const fresh = () => join(folder, `run-${runs++}`);

const rows = Array.from({ length: 14 }, (_, i) => {
  const x = new Float64Array(3);
  fillNormal(x, randomStream(5, `row/${i}`));
  const values = [...x].map((v) => Math.fround(v));
  return { x: values, t: Math.fround(values[0]! * 2 - values[1]! + 0.5) };
});
const data = join(folder, 'data.jsonl');
writeFileSync(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));

/** Batches of every step as the plan's documentation says: shuffled per epoch by seed, the last one smaller. */
function batchesOf(epochs: number, size: number, seed: number) {
  return Array.from({ length: epochs }, (_, epoch) => {
    const order = [...epochOrder(rows.length, seed, epoch, true)];
    const batches = [];
    for (let i = 0; i < order.length; i += size) batches.push(order.slice(i, i + size).map((j) => rows[j]!));
    return batches;
  }).flat();
}

function close(actual: readonly number[], expected: readonly number[]) {
  expect(actual.length).toBe(expected.length);
  // float32 arithmetic of a few dozen operations per step over a few dozen steps: 2^-24 · 40 · 40, rounded up.
  actual.forEach((value, i) => {
    expect(Math.abs(value - expected[i]!) / (1 + Math.abs(expected[i]!))).toBeLessThan(1e-4);
  });
}

describe('learning-rate schedules', () => {
  it('equals the schedules of transformers', () => {
    const at = (id: string, step: number) =>
      learningRate({ id, learningRate: 2, warmupSteps: 4, totalSteps: 20 }, step);
    // get_linear_schedule_with_warmup(opt, 4, 20): lr_lambda(k) = k/4, then (20−k)/16, with k = step − 1.
    expect([1, 2, 5, 13, 20].map((s) => at('linear', s))).toEqual([0, 0.5, 2, 1, 0.125]);
    expect(at('cosine', 13)).toBeCloseTo(1, 12);
    expect(at('cosine', 5)).toBe(2);
    expect(at('constant', 20)).toBe(2);
    expect(() => at('triangle', 9)).toThrow(/constant, linear, cosine/);
  });
});

describe('persist', () => {
  it('writes again after an interrupt in the middle, and only then', async () => {
    const control = new AbortController();
    let attempts = 0;
    const failing = (abort: boolean) => async () => {
      attempts++;
      if (attempts > 1) return 'written';
      if (abort) control.abort();
      throw new Error('gone');
    };
    await expect(persist(control.signal, failing(false))).rejects.toThrow('gone');
    attempts = 0;
    expect(await persist(control.signal, failing(true))).toBe('written');
    attempts = 0;
    await expect(persist(control.signal, failing(true))).rejects.toThrow('gone');
  });
});

describe('training', () => {
  it('follows the reference arithmetic step by step', async () => {
    const events: TrainEvent[] = [];
    const out = fresh();
    const result = await train({
      artifacts: regression(),
      data,
      out,
      epochs: 4,
      batchSize: 4,
      seed: 9,
      schedule: { id: 'linear', warmupSteps: 3 },
      onEvent: (event) => events.push(event),
    });
    const schedule = { id: 'linear', learningRate: 0.05, warmupSteps: 3, totalSteps: 16 };
    close(
      result.losses,
      referenceLosses(batchesOf(4, 4, 9), (step) => learningRate(schedule, step)),
    );
    expect(result.losses.at(-1)!).toBeLessThan(result.losses[0]! / 2);
    expect(result).toMatchObject({ reason: 'finished', steps: 16, trainable: 3 });
    const { tensors, record } = await readAdapter(result.adapter!);
    expect([...tensors.keys()]).toEqual(['layer.w']);
    expect([record.base, record.entries[0]?.method]).toEqual(['sha256:base', 'test']);
    const written = tensors.get('layer.w')!;
    expect(written.data.read(0, 12)).toEqual(new Uint8Array(result.params.get('layer.w')!.data));
    expect(readLog(result.log).map((entry) => entry.loss)).toEqual(result.losses);
    expect(events[0]).toMatchObject({ type: 'start', totalSteps: 16, stepsPerEpoch: 4, examples: 14 });
    expect(events.filter((event) => event.type === 'step').map((event) => event.epoch)).toEqual(
      [1, 2, 3, 4].flatMap((epoch) => [epoch, epoch, epoch, epoch]),
    );
    expect(events.at(-1)).toMatchObject({ type: 'end', reason: 'finished', step: 16 });
  });

  it('accumulates micro-batches of unequal size like one big batch', async () => {
    const accumulated = await train({
      artifacts: regression(3),
      data,
      out: fresh(),
      epochs: 3,
      batchSize: 2,
      seed: 4,
    });
    // 7 micro-batches of 2 per epoch: steps of 6, 6 and 2 examples.
    const batches = Array.from({ length: 3 }, (_, epoch) => {
      const order = [...epochOrder(rows.length, 4, epoch, true)].map((j) => rows[j]!);
      return [order.slice(0, 6), order.slice(6, 12), order.slice(12)];
    }).flat();
    close(
      accumulated.losses,
      referenceLosses(batches, () => 0.05),
    );
  });

  it('resumes a crashed run to the identical losses, logs and weights', async () => {
    const settings = {
      artifacts: regression(),
      data,
      epochs: 5,
      batchSize: 3,
      seed: 2,
      checkpointEvery: 4,
      validation: 0.2,
      evalEvery: 3,
      schedule: { id: 'cosine', warmupSteps: 2 },
    };
    const whole = await train({ ...settings, out: fresh() });
    const out = fresh();
    const crash = new Error('power cut');
    await expect(
      train({
        ...settings,
        out,
        onEvent: (event) => {
          if (event.type === 'step' && event.step === 11) throw crash;
        },
      }),
    ).rejects.toBe(crash);
    expect(readLog(join(out, 'log.jsonl')).filter((entry) => 'loss' in entry)).toHaveLength(11);
    const resumed = await train({ ...settings, out, resume: true });
    expect(resumed.losses).toEqual(whole.losses.slice(8));
    expect(readFileSync(resumed.log, 'utf8')).toBe(readFileSync(whole.log, 'utf8'));
    expect(readFileSync(resumed.adapter!)).toEqual(readFileSync(whole.adapter!));
    expect(readFileSync(join(out, 'checkpoints', 'best.safetensors'))).toEqual(
      readFileSync(join(whole.adapter!, '..', 'checkpoints', 'best.safetensors')),
    );
    // Resuming a run that is over repeats its last evaluation and changes nothing.
    const again = await train({ ...settings, out, resume: true });
    expect(again.losses).toEqual([]);
    expect(again.evals).toEqual([whole.evals.at(-1)]);
    expect(readFileSync(again.log, 'utf8')).toBe(readFileSync(whole.log, 'utf8'));
    // Two newest and the best one.
    expect(readdirSync(join(out, 'checkpoints')).sort()).toEqual([
      'best.safetensors',
      'step-00000016.safetensors',
      'step-00000020.safetensors',
    ]);
  });

  it('refuses to resume another run, and says what differs', async () => {
    const out = fresh();
    const settings = { artifacts: regression(), data, out, batchSize: 4, checkpointEvery: 2 };
    await train({ ...settings, seed: 1 });
    await refuses(
      train({ ...settings, seed: 2, resume: true }),
      'E_INVALID_DATA',
      /its seed is 1, this run has 2/,
    );
    await refuses(
      train({ ...settings, seed: 1, batchSize: 7, resume: true }),
      'E_INVALID_DATA',
      /batch size is 4, this run has 7/,
    );
    await refuses(train({ ...settings, out: fresh(), resume: true }), 'E_IO', /no checkpoint/);
    await refuses(train({ ...settings, seed: 1 }), 'E_EXISTS', /--force/);
    await train({ ...settings, seed: 1, force: true });
  });

  it('stops with a checkpoint when it is interrupted, and goes on from there', async () => {
    const settings = { artifacts: regression(), data, epochs: 3, batchSize: 4, seed: 3 };
    const whole = await train({ ...settings, out: fresh() });
    const out = fresh();
    const control = new AbortController();
    const cut = await train({
      ...settings,
      out,
      signal: control.signal,
      onEvent: (event) => {
        if (event.type === 'step' && event.step === 5) control.abort();
      },
    });
    expect(cut).toMatchObject({ reason: 'interrupted', steps: 5, adapter: undefined });
    expect(existsSync(join(out, 'adapter.safetensors'))).toBe(false);
    const rest = await train({ ...settings, out, resume: true });
    expect([...cut.losses, ...rest.losses]).toEqual(whole.losses);
  });

  it('does an evaluation that was interrupted when it goes on', async () => {
    const held = await loadDataset(data, { batch: regression().manifest.batch, loss: 'mse' });
    const settings = {
      artifacts: regression(),
      data,
      epochs: 4,
      batchSize: 4,
      evalEvery: 3,
      evalBatchSize: 2,
    };
    const whole = await train({ ...settings, evalData: held, out: fresh() });
    const out = fresh();
    const control = new AbortController();
    let reads = 0;
    const interrupting: Dataset = {
      ...held,
      example: (index) => {
        // One check of all rows, one evaluation, and into the next.
        if (++reads === rows.length * 2 + 5) control.abort();
        return held.example(index);
      },
    };
    const cut = await train({ ...settings, evalData: interrupting, out, signal: control.signal });
    expect(cut).toMatchObject({ reason: 'interrupted', steps: 6 });
    const rest = await train({ ...settings, evalData: held, out, resume: true });
    expect([...cut.evals, ...rest.evals]).toEqual(whole.evals);
    expect(readFileSync(rest.log, 'utf8')).toBe(readFileSync(whole.log, 'utf8'));
  });

  it('keeps what it writes after it was resumed from an earlier checkpoint', async () => {
    const settings = { artifacts: regression(), data, out: fresh(), batchSize: 2, checkpointEvery: 1 };
    const whole = await train({ ...settings, keepCheckpoints: 7 });
    const early = join(settings.out, 'checkpoints', 'step-00000002.safetensors');
    const control = new AbortController();
    const result = await train({
      ...settings,
      resume: early,
      signal: control.signal,
      onEvent: (event) => {
        if (event.type === 'step') control.abort();
      },
    });
    expect(result).toMatchObject({ reason: 'interrupted', steps: 3 });
    expect(existsSync(result.checkpoint!)).toBe(true);
    const rest = await train({ ...settings, resume: result.checkpoint! });
    expect(rest.losses).toEqual(whole.losses.slice(3));
  });

  it('names the checkpoint before a damaged one', async () => {
    const settings = { artifacts: regression(), data, out: fresh(), batchSize: 2, checkpointEvery: 3 };
    const whole = await train(settings);
    const folder = join(settings.out, 'checkpoints');
    const last = join(folder, 'step-00000006.safetensors');
    writeFileSync(last, readFileSync(last).subarray(0, 200));
    await refuses(
      train({ ...settings, resume: true }),
      'E_INVALID_DATA',
      /step-00000006.*Resume from the one before it: .*step-00000003/,
    );
    const rest = await train({ ...settings, resume: join(folder, 'step-00000003.safetensors') });
    expect(rest.losses).toEqual(whole.losses.slice(3));
  });

  it('removes its own files only when it replaces a run', async () => {
    const settings = { artifacts: regression(), data, out: fresh(), checkpointEvery: 1 };
    await train(settings);
    const foreign = join(settings.out, 'checkpoints', 'of-another-tool.bin');
    writeFileSync(foreign, 'precious');
    rmSync(join(settings.out, 'adapter.safetensors'));
    rmSync(join(settings.out, 'log.jsonl'));
    await refuses(train(settings), 'E_EXISTS', /checkpoints/);
    await train({ ...settings, force: true, maxSteps: 1 });
    expect(readdirSync(join(settings.out, 'checkpoints')).sort()).toEqual([
      'of-another-tool.bin',
      'step-00000001.safetensors',
    ]);
  });

  it.each([
    { batchSize: 0 },
    { batchSize: 1.5 },
    { evalBatchSize: Number.NaN },
    { maxSteps: 2.5 },
    { patience: 0 },
    { seed: 0.5 },
    { evalEvery: -1 },
    { checkpointEvery: 0.5 },
    { schedule: { learningRate: Number.NaN } },
    { schedule: { learningRate: -1 } },
  ])('refuses %j', async (options) => {
    await refuses(train({ artifacts: regression(), data, out: fresh(), ...options }), 'E_USAGE', /NaN|-1|\d/);
  });

  it('evaluates over all held-out rows, whatever their batches', async () => {
    const run = (evalBatchSize: number) =>
      train({
        artifacts: regression(),
        data,
        out: fresh(),
        maxSteps: 1,
        batchSize: 4,
        schedule: { learningRate: 0 },
        evalData: data,
        evalBatchSize,
      });
    const w = [0.1, -0.2, 0.3];
    const expected =
      rows.reduce((sum, { x, t }) => sum + (x.reduce((s, v, j) => s + v * w[j]!, 0) - t) ** 2, 0) /
      rows.length;
    for (const size of [1, 5, 14, 20]) {
      const { evals } = await run(size);
      expect(evals).toHaveLength(1);
      expect(evals[0]!.weight).toBe(14);
      close([evals[0]!.loss], [expected]);
    }
  });

  it('stops early without progress and can return to the best parameters', async () => {
    const out = fresh();
    const result = await train({
      artifacts: regression(),
      data,
      out,
      epochs: 50,
      batchSize: 14,
      evalData: data,
      evalEvery: 1,
      patience: 2,
      restoreBest: true,
      // Momentum at this rate overshoots: the loss falls, then rises.
      schedule: { learningRate: 0.3 },
    });
    expect(result.reason).toBe('early-stop');
    const best = result.evals.reduce((a, b) => (b.loss < a.loss ? b : a));
    expect(result.evals.length).toBe(best.step + 2);
    const w = numbersOf(result.params.get('layer.w')!);
    const loss =
      rows.reduce((sum, { x, t }) => sum + (x.reduce((s, v, j) => s + v * w[j]!, 0) - t) ** 2, 0) /
      rows.length;
    close([loss], [best.loss]);
  });

  it('names what became infinite first, and the examples it happened on', async () => {
    const bad = join(folder, 'bad.jsonl');
    writeFileSync(
      bad,
      [...rows.slice(0, 6), { x: [1e38, 1e38, 1], t: 0 }].map((r) => `${JSON.stringify(r)}\n`).join(''),
    );
    await refuses(
      train({ artifacts: regression(), data: bad, out: fresh(), batchSize: 1, shuffle: false }),
      'E_NON_FINITE',
      /step 7: the loss is Infinity \(at .*bad\.jsonl:7\)/,
    );
    // Finite loss, infinite gradient: (1e19)² is in range, its square is not.
    writeFileSync(bad, `${JSON.stringify({ x: [1e19, 0, 0], t: 0 })}\n`);
    await refuses(
      train({ artifacts: regression(), data: bad, out: fresh(), batchSize: 1 }),
      'E_NON_FINITE',
      /gradient/,
    );
  });

  it('checks the data before the first step', async () => {
    const bad = join(folder, 'shape.jsonl');
    const attempt = (line: string) => {
      writeFileSync(bad, `${JSON.stringify(rows[0])}\n\n${line}\n`);
      return train({ artifacts: regression(), data: bad, out: fresh() });
    };
    await refuses(
      attempt('{"x":[1,2],"t":0}'),
      'E_INVALID_DATA',
      /'x' has shape \[2\].*takes \[3\].*shape\.jsonl:3/,
    );
    await refuses(attempt('{"x":[1,2,3]}'), 'E_INVALID_DATA', /no tensor 't'/);
    await refuses(attempt('{"x":[1,2,3],"t":0,"y":1}'), 'E_INVALID_DATA', /no input 'y'/);
    await refuses(attempt('{"x":[1,"2",3],"t":0}'), 'E_INVALID_DATA', /"2", which is no number/);
    await refuses(attempt('{"x":[[1,2],[3]],"t":0}'), 'E_INVALID_DATA', /ragged/);
    await refuses(attempt('{"x":[1,2,3'), 'E_INVALID_DATA', /no JSON.*shape\.jsonl:3/);
    await refuses(train({ artifacts: regression(), data: join(folder, 'none.jsonl'), out: fresh() }), 'E_IO');
    await refuses(train({ artifacts: regression(), data: 'package.json5', out: fresh() }), 'E_IO');
  });
});
