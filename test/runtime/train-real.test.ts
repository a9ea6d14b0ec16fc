/** The trainer on exported transformers: against torch and peft, through files, killed and resumed. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { emitStep } from '../../passes/targets/step.js';
import { readAdapter } from '../../runtime/adapter-file.js';
import { artifactsInMemory, loadArtifacts, writeArtifacts } from '../../runtime/artifacts.js';
import { Collator } from '../../runtime/data/batch.js';
import type { Dataset } from '../../runtime/data/dataset.js';
import { type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from '../../runtime/host-tensor.js';
import { readSafetensors } from '../../runtime/safetensors.js';
import { evaluateDataset } from '../../runtime/train/evaluate.js';
import { Stepper } from '../../runtime/train/stepper.js';
import { train } from '../../runtime/train/train.js';
import { readModel } from '../../src/onnx/index.js';
import { repositoryRoot } from '../helpers/fixtures.js';
import { recordedData } from '../helpers/recorded-data.js';

const models = join(repositoryRoot, 'fixtures/models');
const reference = join(repositoryRoot, 'fixtures/reference');
const folder = mkdtempSync(join(tmpdir(), 'train-real-'));
afterAll(() => rmSync(folder, { recursive: true }));

interface Recorded {
  readonly architecture: string;
  readonly task: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly targets: string[] | string;
  readonly optimizer: { readonly weightDecay: number };
  readonly clip: number;
  readonly accumulation: number;
  readonly schedule: {
    readonly id: string;
    readonly learningRate: number;
    readonly warmupSteps: number;
    readonly totalSteps: number;
  };
  readonly steps: number;
  readonly losses: readonly number[];
  readonly gradientNorms: readonly number[];
}

/** peft's first values, [out, in] there, [in, out] here. */
async function recordedInit(name: string, keys: readonly string[]): Promise<Map<string, HostTensor>> {
  const { tensors } = readSafetensors(join(reference, `${name}.safetensors`));
  const initial = new Map<string, HostTensor>();
  for (const key of keys) {
    const stored = await loadTensor(tensors.get(`init.base_model.model.${key}.weight`)!);
    const [rows, columns] = stored.dims as [number, number];
    const values = numbersOf(stored);
    initial.set(
      key,
      tensorOfNumbers(
        'float32',
        [columns, rows],
        Array.from({ length: values.length }, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!),
      ),
    );
  }
  return initial;
}

describe.skipIf(!existsSync(reference))('training exported transformers', () => {
  for (const [name, file] of [
    ['bert-lora', 'bert.ts.dynamic'],
    ['gpt2-lora-accumulated', 'gpt2.dynamo.dynamic'],
    ['llama-lora', 'llama.ts.static'],
  ] as const)
    it(`${name}: 20 losses as torch and peft have them, on ${file}`, async () => {
      const recorded = JSON.parse(readFileSync(join(reference, `${name}.json`), 'utf8')) as Recorded;
      const model = readModel(join(models, `${file}.onnx`));
      insert(model, { method: 'lora', config: recorded.config, targeting: { targets: recorded.targets } });
      const artifacts = await artifactsInMemory(
        emitStep(model, {
          loss: recorded.task,
          clip: recorded.clip,
          accumulation: recorded.accumulation,
          optimizerConfig: { weightDecay: recorded.optimizer.weightDecay },
          schedule: recorded.schedule,
        }),
        model,
      );
      const norms: number[] = [];
      const result = await train({
        artifacts,
        data: await recordedData(
          join(reference, `${name}.safetensors`),
          recorded.steps * recorded.accumulation,
        ),
        initial: await recordedInit(
          name,
          artifacts.manifest.params.map(({ key }) => key),
        ),
        out: join(folder, name),
        batchSize: 4,
        shuffle: false,
        session: { threads: 1 },
        onEvent: (event) => {
          if (event.type === 'step') norms.push(event.gradNorm);
        },
      });
      expect(result.losses).toHaveLength(20);
      result.losses.forEach((loss, i) => {
        expect(Math.abs(loss / recorded.losses[i]! - 1), `loss ${i + 1}`).toBeLessThan(1e-4);
        expect(Math.abs(norms[i]! / recorded.gradientNorms[i]! - 1), `norm ${i + 1}`).toBeLessThan(1e-3);
      });
    });

  it('trains half-precision exports, bfloat16 in float32 arithmetic where there are no kernels', async () => {
    const values = (i: number) => Array.from({ length: 5 }, (_, j) => (7 * i + 5 * j * j) % 64);
    const data: Dataset = {
      source: 'made up',
      length: 8,
      example: (i) => {
        const tensor = { dims: [5], values: values(i) };
        return {
          where: String(i),
          tensors: new Map([
            ['input_ids', tensor],
            ['labels', tensor],
          ]),
        };
      },
    };
    const losses: (readonly number[])[] = [];
    for (const name of ['llama.dynamo.dynamic', 'llama.dynamo.fp16', 'llama.dynamo.bf16']) {
      const model = readModel(join(models, `${name}.onnx`));
      insert(model, { method: 'lora', targeting: { targets: 'all-linear' }, seed: 1 });
      const emitted = emitStep(model, {
        loss: 'causal-lm',
        schedule: { id: 'constant', learningRate: 0.01 },
      });
      const result = await train({
        artifacts: await artifactsInMemory(emitted, model),
        data,
        out: join(folder, name),
        maxSteps: 8,
        batchSize: 8,
        session: { threads: 1 },
      });
      losses.push(result.losses);
      expect(result.losses.at(-1)!).toBeLessThan(0.9 * result.losses[0]!);
    }
    const [exact, half, brain] = losses;
    // Weights rounded once: relative 2^-11 and 2^-8 each, through a network of a dozen products in a row.
    exact!.forEach((loss, i) => {
      expect(Math.abs(half![i]! / loss - 1), `fp16, step ${i + 1}`).toBeLessThan(12 * 2 ** -11);
      expect(Math.abs(brain![i]! / loss - 1), `bf16, step ${i + 1}`).toBeLessThan(12 * 2 ** -8);
    });
  });

  it('measures loss and accuracy over all tokens, whatever the batches', async () => {
    const model = readModel(join(models, 'gpt2.ts.dynamic.onnx'));
    insert(model, { method: 'lora', targeting: { targets: ['c_attn'] } });
    const artifacts = await artifactsInMemory(emitStep(model, { loss: 'causal-lm' }), model);
    const data: Dataset = {
      source: 'made up',
      length: 7,
      example: (i) => {
        const values = Array.from({ length: 3 + i }, (_, j) => (i + 3 * j) % 64);
        const tensor = { dims: [values.length], values };
        return {
          where: String(i),
          tensors: new Map([
            ['input_ids', tensor],
            ['labels', tensor],
          ]),
        };
      },
    };
    const stepper = new Stepper(artifacts, { threads: 1 });
    await stepper.load(artifacts.initial);
    const collator = new Collator(artifacts.manifest.batch);
    const [one, three, all] = await Promise.all(
      [1, 3, 7].map((size) => evaluateDataset(stepper, data, collator, { batchSize: size })),
    );
    await stepper.close();
    // 3 + … + 9 tokens, the first of each row predicted by nothing.
    expect([one!.weight, three!.weight, all!.weight]).toEqual([35, 35, 35]);
    for (const other of [three!, all!]) {
      expect(Math.abs(other.loss / one!.loss - 1)).toBeLessThan(1e-5);
      expect(other.metrics.correct).toBeCloseTo(one!.metrics.correct!, 10);
      expect(other.perplexity).toBe(Math.exp(other.loss));
    }
    expect(Number.isInteger(Math.round(one!.metrics.correct! * 35 * 1e6) / 1e6)).toBe(true);
  });

  it('through files, with dropout, killed after a step and resumed: identical to the run that was not', async () => {
    const model = readModel(join(models, 'gpt2.ts.dynamic.onnx'));
    insert(model, {
      method: 'lora',
      config: { rank: 4, dropout: 0.2 },
      targeting: { targets: 'all-linear' },
      seed: 3,
    });
    const emitted = emitStep(model, {
      loss: 'causal-lm',
      accumulation: 2,
      schedule: { id: 'linear', learningRate: 0.01 },
    });
    const artifacts = join(folder, 'artifacts');
    const written = await writeArtifacts(artifacts, emitted, model);
    expect(written.map((path) => path.slice(artifacts.length + 1))).toEqual([
      'grad.onnx',
      'update.onnx',
      'eval.onnx',
      'initial.safetensors',
      'manifest.json',
    ]);
    expect((await loadArtifacts(artifacts)).initial).toEqual(
      (await artifactsInMemory(emitted, model)).initial,
    );

    const data = join(folder, 'tokens.jsonl');
    writeFileSync(
      data,
      Array.from({ length: 24 }, (_, i) => {
        const ids = Array.from({ length: 4 + (i % 5) }, (_, j) => (7 * i + 5 * j * j) % 64);
        return `${JSON.stringify({ input_ids: ids, labels: ids })}\n`;
      }).join(''),
    );
    const settings = {
      artifacts,
      data,
      epochs: 3,
      batchSize: 3,
      seed: 11,
      checkpointEvery: 3,
      evalEvery: 4,
      validation: 0.25,
      session: { threads: 1 },
    };
    const whole = await train({ ...settings, out: join(folder, 'whole') });
    const out = join(folder, 'killed');
    const child = spawnSync(
      process.execPath,
      [join(repositoryRoot, 'test/runtime/killed-run.mjs'), JSON.stringify({ ...settings, out }), '5'],
      { encoding: 'utf8' },
    );
    expect(child.signal, child.stderr).toBe('SIGKILL');
    const resumed = await train({ ...settings, out, resume: true });
    expect(resumed.losses).toEqual(whole.losses.slice(3));
    expect(resumed.evals).toEqual(whole.evals);
    expect(readFileSync(resumed.log, 'utf8')).toBe(readFileSync(whole.log, 'utf8'));
    expect(readFileSync(resumed.adapter!)).toEqual(readFileSync(whole.adapter!));
    // Training moved every tensor of the adapter.
    const { initial } = await loadArtifacts(artifacts);
    for (const [key, tensor] of (await readAdapter(whole.adapter!)).tensors)
      expect(
        Buffer.from((await loadTensor(tensor)).data).equals(Buffer.from(initial.get(key)!.data)),
        key,
      ).toBe(false);
  });
});
