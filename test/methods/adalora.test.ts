/** AdaLoRA against PEFT: twenty steps with allocation, its masks, scores and penalty; resumed and accumulated alike. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readAdapterRecord, trainableParams } from '../../passes/adapter-record.js';
import adalora from '../../passes/methods/adalora.js';
import { budgetAt } from '../../passes/methods/parts/adalora-allocator.js';
import { Collator } from '../../runtime/data/batch.js';
import type { Dataset } from '../../runtime/data/dataset.js';
import { type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from '../../runtime/host-tensor.js';
import { emit } from '../../runtime/library/emit.js';
import { insert } from '../../runtime/library/insert.js';
import { readSafetensors } from '../../runtime/safetensors.js';
import { loadCheckpoint } from '../../runtime/train/checkpoint.js';
import type { TrainOptions } from '../../runtime/train/options.js';
import { Stepper } from '../../runtime/train/stepper.js';
import { train } from '../../runtime/train/train.js';
import { readModel } from '../../src/onnx/index.js';
import { cliJson } from '../cli/support.js';
import { repositoryRoot } from '../helpers/fixtures.js';
import { recordedData } from '../helpers/recorded-data.js';

const reference = join(repositoryRoot, 'fixtures/reference/methods');
const folder = mkdtempSync(join(tmpdir(), 'adalora-'));
afterAll(() => rmSync(folder, { recursive: true }));

interface Reference {
  readonly task: string;
  readonly config: Readonly<Record<string, number>>;
  readonly targets: string[];
  readonly optimizer: { readonly weightDecay: number };
  readonly clip: number;
  readonly schedule: { readonly id: string; readonly learningRate: number; readonly warmupSteps: number };
  readonly steps: number;
  readonly losses: readonly number[];
  readonly gradientNorms: readonly number[];
  readonly budgets: readonly number[];
  readonly allocations: readonly {
    readonly step: number;
    readonly threshold: number;
    readonly next: number;
    readonly masks: Readonly<Record<string, readonly boolean[]>>;
  }[];
}

function read(architecture: string): Reference {
  return JSON.parse(readFileSync(join(reference, `${architecture}-adalora.json`), 'utf8')) as Reference;
}

/** Rows of the recorded batches as one data set, in order. */
function batches(architecture: string, count: number): Promise<Dataset> {
  return recordedData(join(reference, `${architecture}-batches.safetensors`), count);
}

/** PEFT keeps factors as [rank, in], [rank, 1] and [out, rank]. */
async function initial(architecture: string, keys: readonly string[]): Promise<Map<string, HostTensor>> {
  const { tensors } = readSafetensors(join(reference, `${architecture}-adalora.safetensors`));
  const found = new Map<string, HostTensor>();
  for (const key of keys) {
    const stored = await loadTensor(tensors.get(`init.${key}`)!);
    const [rows, columns] = stored.dims as [number, number];
    const values = numbersOf(stored);
    const transposed = Array.from(values, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!);
    found.set(key, tensorOfNumbers('float32', [columns, rows], transposed));
  }
  return found;
}

async function run(
  architecture: string,
  out: string,
  microBatches: number,
  options: Partial<TrainOptions> = {},
) {
  const expected = read(architecture);
  const { totalSteps: _total, initialRank: rank, ...config } = expected.config;
  const model = readModel(join(repositoryRoot, `fixtures/models/${architecture}.ts.dynamic.onnx`));
  await insert(model, {
    method: 'adalora',
    config: { rank, ...config },
    targeting: { targets: expected.targets },
  });
  const artifacts = await emit(model, {
    target: 'step',
    loss: expected.task,
    optimizerConfig: { weightDecay: expected.optimizer.weightDecay },
    clip: expected.clip,
    accumulation: microBatches,
    schedule: expected.schedule,
  });
  const keys = trainableParams(readAdapterRecord(model)).map(({ key }) => key);
  return train({
    artifacts,
    data: await batches(architecture, expected.steps),
    initial: await initial(architecture, keys),
    shuffle: false,
    batchSize: 4 / microBatches,
    maxSteps: expected.steps,
    checkpointEvery: 1,
    keepCheckpoints: expected.steps,
    out,
    ...options,
  });
}

const checkpointOf = (out: string, step: number) =>
  loadCheckpoint(join(out, 'checkpoints', `step-${String(step).padStart(8, '0')}.safetensors`));

describe.each(['bert', 'llama'])('AdaLoRA on %s', (architecture) => {
  const expected = read(architecture);

  // Rows of a causal batch differ in tokens that count, which micro-batches must weigh.
  it.each([1, 2])(
    'equals PEFT in %s micro-batches per step',
    async (microBatches) => {
      const out = join(folder, `${architecture}-${microBatches}`);
      const result = await run(architecture, out, microBatches);
      expect(result.losses.length).toBe(expected.steps);
      result.losses.forEach((loss, i) => {
        expect(Math.abs(loss - expected.losses[i]!), `loss of step ${i}`).toBeLessThan(1e-4);
      });
      const { tensors } = readSafetensors(join(reference, `${architecture}-adalora.safetensors`));
      for (const { step, masks, threshold, next } of expected.allocations) {
        const { params, procedures } = await checkpointOf(out, step + 1);
        for (const [key, kept] of Object.entries(masks)) {
          const E = numbersOf(params.get(key)!);
          expect(
            [...E].map((value) => value !== 0),
            `mask of ${key} after step ${step}`,
          ).toEqual(kept);
          const wanted = numbersOf(await loadTensor(tensors.get(`allocation${step}.value.${key}`)!));
          E.forEach((value, r) => {
            expect(Math.abs(value - wanted[r]!)).toBeLessThan(1e-4);
          });
          // The factors' scores are forgotten when the ranks are settled.
          const score = procedures.get(`0/sensitivity/${key}`);
          expect(score === undefined).toBe(step === expected.steps - expected.config.finalSteps!);
        }
        expect(next).toBeGreaterThan(threshold);
      }
      // Masks hold to the end.
      const last = await checkpointOf(out, expected.steps);
      for (const [key, kept] of Object.entries(expected.allocations.at(-1)!.masks))
        expect([...numbersOf(last.params.get(key)!)].map((value) => value !== 0)).toEqual(kept);
    },
    60_000,
  );
});

describe('a procedure', () => {
  it('goes on exactly where an interrupted run left it', async () => {
    const whole = join(folder, 'bert-1');
    if (!existsSync(whole)) await run('bert', whole, 1);
    const out = join(folder, 'resumed');
    const controller = new AbortController();
    const first = await run('bert', out, 1, {
      signal: controller.signal,
      onEvent: (event) => {
        if (event.type === 'step' && event.step === 8) controller.abort();
      },
    });
    expect(first.reason).toBe('interrupted');
    expect(first.steps).toBe(8);
    const second = await run('bert', out, 1, { resume: true });
    expect(second.losses.length).toBe(12);
    for (const file of ['adapter.safetensors', 'checkpoints/step-00000020.safetensors'])
      expect(readFileSync(join(out, file)).equals(readFileSync(join(whole, file)))).toBe(true);
  }, 60_000);

  it('is not continued as a run of another length', async () => {
    const out = join(folder, 'bert-1');
    if (!existsSync(out)) await run('bert', out, 1);
    await expect(run('bert', out, 1, { resume: true, maxSteps: 24, epochs: 2 })).rejects.toThrow(
      /number of steps|schedule/,
    );
  });

  it('refuses a run that leaves no steps for allocation', async () => {
    await expect(run('bert', join(folder, 'short'), 1, { maxSteps: 7 })).rejects.toThrow(/no phase/);
  });

  it('has gradients only of what it reads, and only where it asks', async () => {
    const model = readModel(join(repositoryRoot, 'fixtures/models/bert.ts.dynamic.onnx'));
    await insert(model, {
      entries: [
        { method: adalora, targeting: { targets: ['query'] } },
        { method: 'lora', targeting: { targets: ['value'] } },
      ],
    });
    const { manifest } = await emit(model, { target: 'step', loss: 'classification' });
    for (const { key, gradient } of manifest.params)
      expect(gradient !== undefined, key).toBe(key.includes('query'));
  });
});

describe('from the command line', () => {
  it('allocates, saves and folds', async () => {
    const base = join(repositoryRoot, 'fixtures/models/bert.ts.dynamic.onnx');
    const at = (name: string) => join(folder, name);
    const data = await batches('bert', 2);
    const lines = Array.from({ length: data.length }, (_, row) =>
      JSON.stringify(
        Object.fromEntries(
          [...data.example(row).tensors].map(([name, { dims, values }]) => [
            name,
            dims.length === 0 ? values[0] : Array.from(values),
          ]),
        ),
      ),
    );
    writeFileSync(at('data.jsonl'), lines.join('\n'));
    const run = async (...args: string[]) => {
      const { status, json } = await cliJson(...args);
      expect(status).toBe(0);
      return json;
    };
    const method = ['-m', 'adalora', '--set', 'rank=3', '--set', 'targetRank=1'];
    await run('insert', base, ...method, '-t', 'query', 'value', '-o', at('adapted.onnx'));
    const training = ['--loss', 'classification', '-d', at('data.jsonl'), '--steps', '6'];
    const report = await run('train', at('adapted.onnx'), ...training, '-o', at('run'));
    // A and B of [32, 3], E of 3, at four modules.
    expect(report).toMatchObject({ trainable: 4 * (2 * 96 + 3), stored: 4 * (2 * 96 + 3) });
    const { tensors } = readSafetensors(at('run/adapter.safetensors'));
    let alive = 0;
    for (const [key, tensor] of tensors)
      if (key.endsWith('lora_E'))
        alive += numbersOf(await loadTensor(tensor)).filter((value: number) => value !== 0).length;
    // One per module of the twelve triplets, wherever they are; masked after the last step.
    expect(alive).toBe(4);
    const folded = ['fold', base, '-a', at('run/adapter.safetensors'), '--verify', '-o', at('merged.onnx')];
    await run(...folded);
  }, 30_000);
});

describe('the penalty', () => {
  // Old opsets spell reductions otherwise; in half precision the factors are float32 copies, and so is the penalty.
  it.each(['bert.ts.opset11', 'bert.ts.fp16', 'bert.ts.bf16'])('is exact in %s', async (name) => {
    const losses = [];
    let factors = new Map<string, HostTensor>();
    for (const orthogonality of [0, 0.5]) {
      const model = readModel(join(repositoryRoot, `fixtures/models/${name}.onnx`));
      const config = { rank: 3, targetRank: 2, orthogonality };
      await insert(model, { method: 'adalora', config, targeting: { targets: ['query', 'value'] } });
      const artifacts = await emit(model, { target: 'step', loss: 'classification' });
      const stepper = new Stepper(artifacts);
      try {
        await stepper.load(artifacts.initial);
        factors = await stepper.params();
        const batch = new Collator(artifacts.manifest.batch).batch(
          await batches('bert', 1).then(({ example }) => [0, 1, 2, 3].map(example)),
        );
        losses.push((await stepper.step([batch.feeds], { lr: 0, step: 1, seeds: [0] })).loss);
      } finally {
        await stepper.close();
      }
    }
    const terms = [...factors].flatMap(([key, tensor]) => {
      const [rows, columns] = tensor.dims as [number, number];
      const at = (i: number, r: number) =>
        numbersOf(tensor)[key.endsWith('lora_A') ? i * columns + r : r * columns + i]!;
      if (key.endsWith('lora_E')) return [];
      const [length, rank] = key.endsWith('lora_A') ? [rows, columns] : [columns, rows];
      let sum = 0;
      for (let r = 0; r < rank; r++)
        for (let q = 0; q < rank; q++) {
          let gram = r === q ? -1 : 0;
          for (let i = 0; i < length; i++) gram += at(i, r) * at(i, q);
          sum += gram * gram;
        }
      return [Math.sqrt(sum)];
    });
    expect(terms.length).toBe(8);
    const penalty = (0.5 * terms.reduce((sum, term) => sum + term, 0)) / terms.length;
    // The task's loss is the same float in both runs, but for the rounding of one sum.
    expect(Math.abs(losses[1]! - losses[0]! - penalty)).toBeLessThan(1e-6);
  });
});

describe('the budget', () => {
  it('falls along the cubic of PEFT', () => {
    const expected = read('bert');
    const modules = Array.from({ length: 6 }, () => ({ E: { shape: [1, 6] } }));
    const config = adalora.config.parse({
      rank: 6,
      targetRank: 3,
      initialSteps: 2,
      finalSteps: 5,
      interval: 2,
    }) as unknown as Parameters<typeof budgetAt>[2];
    expect(expected.budgets.map((_, step) => budgetAt(step, 20, config, modules))).toEqual(expected.budgets);
  });
});
