import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import {
  fixturePath,
  gradientsPath,
  type ModelFixture,
  modelFixtures,
  numbersOf,
  quickstartReport,
  readTensors,
  referenceCases,
  type StoredTensor,
} from './helpers/fixtures.js';

const fixtures = modelFixtures();
const references = referenceCases();

/** Largest error of ONNX Runtime against torch over the scale of the logits, as generation itself demands. */
const TOLERANCE: Readonly<Record<string, number>> = { float32: 1e-5, float16: 1e-2 };

function files(folder: string): string[] {
  return readdirSync(fixturePath(folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

function stored(tensors: Map<string, StoredTensor>, name: string): StoredTensor {
  const found = tensors.get(name);
  if (found === undefined) throw new Error(`No tensor ${name}`);
  return found;
}

/** max |a - b| / max |b|. */
function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let error = 0;
  let scale = 0;
  for (let i = 0; i < b.length; i++) {
    error = Math.max(error, Math.abs(a[i]! - b[i]!));
    scale = Math.max(scale, Math.abs(b[i]!));
  }
  expect(scale).toBeGreaterThan(0);
  return error / scale;
}

async function logits(fixture: ModelFixture, inputs: (name: string) => StoredTensor): Promise<Tensor> {
  const session = await InferenceSession.create(fixture.path, { logSeverityLevel: 4, intraOpNumThreads: 1 });
  const feeds = fixture.inputs.map(({ name }) => {
    const { bytes, shape } = inputs(name);
    return [name, new Tensor('int64', new BigInt64Array(bytes.buffer), [...shape])] as const;
  });
  const outputs = await session.run(Object.fromEntries(feeds));
  await session.release();
  return outputs[fixture.outputs[0]!.name]!;
}

/** float16 tensors come out of ONNX Runtime as raw bits, or as Float16Array where Node has it. */
function values(tensor: Tensor): ArrayLike<number> {
  if (!(tensor.data instanceof Uint16Array)) return tensor.data as ArrayLike<number>;
  const bytes = new Uint8Array(tensor.data.slice().buffer);
  return numbersOf({ dtype: 'F16', shape: tensor.dims, bytes });
}

describe('the exported models', () => {
  test('cover every architecture through both exporters, with static and dynamic axes', () => {
    const names = fixtures.map((fixture) => fixture.name);
    for (const architecture of ['bert', 'distilbert', 'roberta', 'gpt2', 'llama'])
      for (const exporter of ['ts', 'dynamo'])
        for (const axes of ['static', 'dynamic'])
          expect(names).toContain(`${architecture}.${exporter}.${axes}`);
    const exported = files('models').filter((path) => path.endsWith('.onnx'));
    expect(exported.map((path) => basename(path, '.onnx')).sort()).toEqual([...names].sort());
  });

  test('carry no path of the machine that made them', () => {
    const foreign = /\/(opt|home|root|tmp|work|usr|Users|var|mnt)\/|[A-Z]:\\\\/;
    const found = ['models', 'reference', 'quickstart', 'peft']
      .flatMap(files)
      .filter((path) => foreign.test(readFileSync(path, 'latin1')));
    expect(found).toEqual([]);
  });

  test('stay small', () => {
    const models = [...files('models'), ...files('quickstart')].filter((path) =>
      /\.onnx(\.data)?$/.test(path),
    );
    const bytes = models.reduce((sum, path) => sum + statSync(path).size, 0);
    expect(bytes).toBeLessThan(10e6);
  });

  // ONNX Runtime's CPU provider has no bfloat16 kernels.
  const runnable = fixtures.filter((fixture) => fixture.dtype !== 'bfloat16');
  test.each(runnable.map((fixture) => [fixture.name, fixture] as const))(
    '%s computes what torch computed',
    async (_, fixture) => {
      const tensors = readTensors(fixture.casesPath);
      expect(fixture.cases).toBeGreaterThan(0);
      for (let i = 0; i < fixture.cases; i++) {
        const got = await logits(fixture, (name) => stored(tensors, `case${i}.${name}`));
        const expected = numbersOf(stored(tensors, `case${i}.${fixture.logits}`));
        expect(distance(values(got), expected)).toBeLessThanOrEqual(TOLERANCE[fixture.dtype]!);
      }
    },
  );

  test('have modules that their corners tell apart', () => {
    for (const fixture of fixtures) {
      const corners = fixture.modules.filter((module) => module.corner !== undefined);
      // A tied head is its embedding transposed, so its corner differs too.
      expect(new Set(corners.map((module) => String(module.corner))).size).toBe(corners.length);
    }
  });
});

describe('the reference runs', () => {
  test.each(references.map((reference) => [reference.name, reference] as const))(
    '%s is complete',
    (_, reference) => {
      const tensors = readTensors(reference.path);
      for (const key of reference.keys)
        for (const kind of ['init', 'gradient', 'gradient64', 'final']) {
          const data = numbersOf(stored(tensors, `${kind}.${key}`));
          expect(Math.max(...data.map(Math.abs))).toBeGreaterThan(0);
          expect(data.every(Number.isFinite)).toBe(true);
        }
      for (const series of [reference.losses, reference.learningRates, reference.gradientNorms])
        expect(series).toHaveLength(reference.steps);
      stored(tensors, `batch${reference.steps * reference.accumulation - 1}.labels`);
      expect(reference.config.alpha).not.toBe(reference.config.rank);
      // The run has to move the model, or agreement with it would prove nothing.
      expect(
        distance(numbersOf(stored(tensors, 'logits.trained')), numbersOf(stored(tensors, 'logits.initial'))),
      ).toBeGreaterThan(0.1);
      expect(
        distance(numbersOf(stored(tensors, 'logits.merged')), numbersOf(stored(tensors, 'logits.trained'))),
      ).toBeLessThanOrEqual(1e-5);
    },
  );

  test('start from adapters that change the base', async () => {
    for (const reference of references) {
      const fixture = fixtures.find((candidate) => candidate.name === `${reference.architecture}.ts.static`)!;
      const tensors = readTensors(reference.path);
      const base = await logits(fixture, (name) => stored(tensors, `batch0.${name}`));
      expect(distance(values(base), numbersOf(stored(tensors, 'logits.initial')))).toBeGreaterThan(0.01);
    }
  });

  test.each(['bert', 'distilbert', 'roberta', 'gpt2', 'llama'] as const)(
    '%s has gradients of its own',
    (name) => {
      const tensors = readTensors(gradientsPath(name));
      const parameters = [...tensors.keys()].filter((key) => key.startsWith('gradient.'));
      expect(parameters.length).toBeGreaterThan(10);
      for (const key of parameters) {
        const exact = numbersOf(stored(tensors, key.replace('gradient.', 'gradient64.')));
        expect(distance(numbersOf(stored(tensors, key)), exact)).toBeLessThanOrEqual(1e-5);
      }
    },
  );
});

describe('the quickstart', () => {
  const text = (name: string): string => readFileSync(fixturePath('quickstart', name), 'utf8');
  const tokenizer = new Tokenizer(JSON.parse(text('tokenizer.json')) as object, {});

  test('has a tokenizer that gives every text back', () => {
    for (const name of ['train.txt', 'validation.txt'])
      expect(tokenizer.decode(tokenizer.encode(text(name)).ids)).toBe(text(name));
  });

  test('has a language model as good as torch measured it', async () => {
    const { window, perplexity } = quickstartReport();
    const ids = tokenizer.encode(text('validation.txt')).ids;
    const rows = Math.floor(ids.length / window);
    const used = ids.slice(0, rows * window);
    const session = await InferenceSession.create(fixturePath('quickstart', 'model.onnx'), {
      logSeverityLevel: 4,
    });
    const { logits: output } = await session.run({
      input_ids: new Tensor('int64', BigInt64Array.from(used, BigInt), [rows, window]),
      attention_mask: new Tensor('int64', new BigInt64Array(used.length).fill(1n), [rows, window]),
    });
    await session.release();
    const vocabulary = output!.dims[2]!;
    const data = output!.data as Float32Array;
    let total = 0;
    for (let i = 0; i < used.length; i++) {
      if (i % window === window - 1) continue;
      const scores = data.subarray(i * vocabulary, (i + 1) * vocabulary);
      total += Math.log(scores.reduce((sum, score) => sum + Math.exp(score), 0)) - scores[used[i + 1]!]!;
    }
    const measured = Math.exp(total / (rows * (window - 1)));
    // The report rounds to two decimals.
    expect(Math.abs(measured - perplexity['validation.txt']!)).toBeLessThan(0.01);
    expect(perplexity['shakespeare, held out']).toBeLessThan(30);
  });
});
