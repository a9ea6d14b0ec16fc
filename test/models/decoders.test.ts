/** Decoders with a past, as optimum exports them: adapted, folded, generating, trained. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attachAdapter, insert } from '../../passes/insert/insert.js';
import type { InsertEntry } from '../../passes/insert/plan.js';
import { emitStep } from '../../passes/targets/step.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { artifactsInMemory } from '../../runtime/artifacts.js';
import { Collator } from '../../runtime/data/batch.js';
import { fold } from '../../runtime/fold/fold.js';
import { type HostTensor, numbersOf as hostNumbers, loadTensor } from '../../runtime/host-tensor.js';
import { datasetOf } from '../../runtime/library/dataset.js';
import { train } from '../../runtime/train/train.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { fixturePath, numbersOf, readTensors } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import { decoderOf, generate, off, type Past, step } from './decoding.js';

const NAMES = ['llama.ts', 'llama.dynamo', 'gpt2.dynamo'] as const;
const LORA: InsertEntry = {
  method: 'lora',
  config: { rank: 3, alpha: 5 },
  targeting: { targets: 'all-linear' },
};
const VOCAB = 32;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'decoders-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const path = (name: string) => fixturePath('decoders', `${name}.onnx`);

/** Rows of tokens with a pattern that can be learned: each is the one before plus the number of its row. */
const rows = Array.from({ length: 8 }, (_, row) =>
  Array.from({ length: 6 + (row % 3) }, (_, i) => 2 + ((3 + row * 5 + i * (1 + (row % 2))) % (VOCAB - 2))),
);
const data = datasetOf(rows.map((ids) => ({ input_ids: ids, labels: ids })));

async function adapted(name: string): Promise<{ unfolded: Model; adapter: string }> {
  const model = readModel(path(name));
  const { record } = insert(model, LORA);
  const tensors = randomParameters(record, model);
  const adapter = join(folder, `${name}.safetensors`);
  await writeAdapter(adapter, record, tensors, { force: true });
  const unfolded = readModel(path(name));
  attachAdapter(unfolded, record, tensors);
  return { unfolded, adapter };
}

describe.each(NAMES)('%s', (name) => {
  test('computes what torch computes once an adapter is in that does nothing yet', async () => {
    const model = readModel(path(name));
    insert(model, LORA);
    const tensors = readTensors(fixturePath('decoders', `${name.split('.')[0]}.safetensors`));
    for (const index of [0, 1, 2]) {
      const feeds = Object.fromEntries(
        model.graph.inputs.map(({ name: input = '' }) => {
          const tensor = tensors.get(`case${index}.${input}`);
          if (tensor === undefined) throw new Error(input);
          const values = numbersOf(tensor);
          return [
            input,
            tensor.dtype === 'I64'
              ? new ort.Tensor('int64', BigInt64Array.from(values, BigInt), tensor.shape)
              : new ort.Tensor('float32', Float32Array.from(values), tensor.shape),
          ];
        }),
      );
      const results = await runModel(model, feeds);
      for (const [output, tensor] of Object.entries(results)) {
        const wanted = Array.from(numbersOf(tensors.get(`case${index}.${output}`)!), Number);
        // Row 0 is padded on the left; its padded places read nothing but themselves.
        const row = wanted.length / (tensor.dims[0] ?? 1);
        expect(off(numbers(tensor).slice(row), wanted.slice(row))).toBeLessThan(1e-5);
      }
    }
  });

  test('folds to the same graph, which generates the same with its cache', async () => {
    const { unfolded, adapter } = await adapted(name);
    const out = join(folder, `${name}.merged.onnx`);
    const report = await fold({ model: path(name), adapter, out, verify: true });
    expect(report.proof?.holds).toBe(true);
    expect(report.verification?.pass).toBe(true);
    const prompt = [3, 17, 8];
    const [before, folded, base] = await Promise.all(
      [unfolded, readModel(out), readModel(path(name))].map(decoderOf),
    );
    const wanted = await generate(before!, prompt, 6);
    const found = await generate(folded!, prompt, 6);
    expect(found.ids).toEqual(wanted.ids);
    for (const [i, logits] of wanted.logits.entries())
      expect(off(found.logits[i]!, logits)).toBeLessThan(1e-4);
    // All at once, without the cache.
    const whole = await step(folded!, [found.ids.slice(0, -1)], undefined);
    expect(off(whole.logits.slice(-VOCAB), wanted.logits.at(-1)!)).toBeLessThan(1e-4);
    expect(off((await generate(base!, prompt, 1)).logits[0]!, wanted.logits[0]!)).toBeGreaterThan(1e-2);
  });

  test('trains sequences without a past, and what is folded has the loss that was reported', async () => {
    const model = readModel(path(name));
    insert(model, LORA);
    const emitted = emitStep(model, { loss: 'causal-lm', schedule: { id: 'constant', learningRate: 1e-2 } });
    const { manifest } = emitted;
    expect(manifest.batch.map((input) => input.name)).toEqual([
      'input_ids',
      'attention_mask',
      'position_ids',
      'labels',
    ]);
    for (const graph of Object.values(manifest.graphs))
      expect(graph?.outputs.filter((output) => output.startsWith('present'))).toEqual([]);
    const out = join(folder, name);
    const result = await train({
      artifacts: await artifactsInMemory(emitted, model),
      data,
      evalData: data,
      out,
      batchSize: 4,
      maxSteps: 24,
      epochs: 20,
    });
    expect(result.losses.at(-1)).toBeLessThan(result.losses[0]! * 0.7);
    const merged = join(folder, `${name}.trained.onnx`);
    await fold({ model: path(name), adapter: result.adapter!, out: merged });
    const decoder = await decoderOf(readModel(merged));
    let [sum, count] = [0, 0];
    for (const ids of rows) {
      const { logits } = await step(decoder, [ids], undefined);
      for (let i = 0; i + 1 < ids.length; i++, count++) {
        const scores = logits.slice(i * VOCAB, (i + 1) * VOCAB);
        sum += Math.log(scores.reduce((total, score) => total + Math.exp(score), 0)) - scores[ids[i + 1]!]!;
      }
    }
    expect(result.evals.at(-1)?.loss).toBeCloseTo(sum / count, 4);
  });
});

test('a past that the data has is fed, and asked for where the data lacks it', async () => {
  const model = readModel(path('gpt2.dynamo'));
  insert(model, LORA);
  const emitted = emitStep(model, { loss: 'causal-lm', inputs: { 'past_key_values.*': 'feed' } });
  const specs = emitted.manifest.batch;
  expect(specs.map((input) => input.name)).toContain('past_key_values.0.key');
  const collator = new Collator(specs);
  expect(() => collator.check(data.example(0))).toThrow(
    expect.objectContaining({
      code: 'E_INVALID_DATA',
      message: expect.stringMatching(/past_key_values\.0\.key.*--set/),
    }),
  );
  // The loss behind a past is that of its tokens alone, as the base computes them.
  const base = await decoderOf(readModel(path('gpt2.dynamo')));
  const ids = rows[0]!;
  const first = await step(base, [ids.slice(0, 3)], undefined);
  const pasts = Object.entries(first.past).map(([key, tensor]) => {
    const [, heads, length, head] = tensor.dims as [number, number, number, number];
    const flat = numbers(tensor);
    return [
      key,
      Array.from({ length: heads }, (_, h) =>
        Array.from({ length }, (_, t) => flat.slice((h * length + t) * head, (h * length + t + 1) * head)),
      ),
    ] as const;
  });
  const tail = ids.slice(3);
  const example = datasetOf([
    {
      input_ids: tail,
      labels: tail,
      attention_mask: ids.map(() => 1),
      position_ids: tail.map((_, i) => 3 + i),
      ...Object.fromEntries(pasts),
    },
  ]).example(0);
  collator.check(example);
  const { feeds } = collator.batch([example]);
  const { initial } = await artifactsInMemory(emitted, model);
  for (const { key, input } of emitted.manifest.params) feeds[input] = initial.get(key)!;
  const evalFeeds = Object.fromEntries(
    emitted.eval.graph.inputs.map(({ name = '' }) => [name, ortTensor(feeds[name]!)]),
  );
  const loss = numbers((await runModel(emitted.eval, evalFeeds))[emitted.manifest.outputs.loss])[0];
  const { logits } = await step(base, [ids], undefined);
  let sum = 0;
  for (let i = 3; i + 1 < ids.length; i++) {
    const scores = logits.slice(i * VOCAB, (i + 1) * VOCAB);
    sum += Math.log(scores.reduce((total, score) => total + Math.exp(score), 0)) - scores[ids[i + 1]!]!;
  }
  expect(loss).toBeCloseTo(sum / (tail.length - 1), 4);
});

test('inputs that do not exist, and inputs that cannot be empty, are named', () => {
  const model = readModel(path('gpt2.dynamo'));
  insert(model, LORA);
  expect(() => emitStep(model, { loss: 'causal-lm', inputs: { past_keys: 'empty' } })).toThrow(
    expect.objectContaining({ code: 'E_NO_MATCH', message: expect.stringContaining("'past_keys'") }),
  );
  expect(() => emitStep(model, { loss: 'causal-lm', inputs: { attention_mask: 'empty' } })).toThrow(
    expect.objectContaining({ code: 'E_USAGE', where: 'attention_mask' }),
  );
});

test('an input that is fixed is computed in the graph', () => {
  const model = readModel(path('gpt2.dynamo'));
  insert(model, LORA);
  const { manifest } = emitStep(model, { loss: 'causal-lm', inputs: { attention_mask: 1 } });
  expect(manifest.batch.map((input) => input.name)).toEqual(['input_ids', 'position_ids', 'labels']);
});

describe.each(NAMES)('a prefix in %s', (name) => {
  test('is a past that every sequence has, at every step', async () => {
    const [LENGTH, ROWS] = [3, 2];
    const model = readModel(path(name));
    const { record } = insert(model, { method: 'prefix', config: { length: LENGTH, positions: 'keep' } });
    const tensors = randomParameters(record, model, { std: 1 });
    const prefixed = readModel(path(name));
    attachAdapter(prefixed, record, tensors);
    const [base, own] = await Promise.all([readModel(path(name)), prefixed].map(decoderOf));
    const sites = record.sites.filter(({ kind }) => kind === 'attention');
    const past: Record<string, Past[string]> = {};
    for (const [layer, { params }] of sites.entries())
      for (const [role, kind] of [
        ['keys', 'key'],
        ['values', 'value'],
      ] as const) {
        const { key, shape } = params[role]!;
        const stored = Float32Array.from(
          hostNumbers(await loadTensor(tensors.get(key)!)) as ArrayLike<number>,
        );
        const repeated = new Float32Array(ROWS * stored.length);
        for (let row = 0; row < ROWS; row++) repeated.set(stored, row * stored.length);
        past[`past_key_values.${layer}.${kind}`] = new ort.Tensor('float32', repeated, [ROWS, ...shape]);
      }
    expect(Object.keys(past)).toHaveLength(base!.pasts.length);
    const ids = [
      [4, 9, 30],
      [7, 7, 21],
    ];
    const next = [[11], [5]];
    // The base reads the prefix as a past and counts positions from 0, as the prefixed model does.
    const wanted = await step(base!, ids, past, { length: LENGTH, first: 0 });
    const found = await step(own!, ids, undefined);
    expect(off(found.logits, wanted.logits)).toBeLessThan(1e-4);
    const wantedNext = await step(base!, next, wanted.past, { length: LENGTH + 3, first: 3 });
    const foundNext = await step(own!, next, found.past, { length: 3 });
    expect(off(foundNext.logits, wantedNext.logits)).toBeLessThan(1e-4);
    const plain = await step(base!, ids, undefined);
    expect(off(plain.logits, wanted.logits)).toBeGreaterThan(1e-2);
  });
});

function ortTensor(tensor: HostTensor): ort.Tensor {
  const values = hostNumbers(tensor) as ArrayLike<number>;
  return tensor.dtype === 'int64'
    ? new ort.Tensor('int64', BigInt64Array.from(values, BigInt), tensor.dims)
    : new ort.Tensor('float32', Float32Array.from(values), tensor.dims);
}
