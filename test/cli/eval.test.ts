/** Measuring models and adapters on data: against numbers that training logs, against folds, against logits. */
import { readFileSync, writeFileSync } from 'node:fs';
import {
  createSession,
  datasetOf,
  evaluate,
  insert,
  load,
  type Model,
  numbersOf,
  tensorOfNumbers,
} from 'peft-compile';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixturePath, modelFixture } from '../helpers/fixtures.js';
import { peftFolder } from '../peft/folders.js';
import { writeTokenizer } from '../runtime/tokenizer.js';
import { cli, cliJson, countingRecords, type JsonReport, temporaryFolder, writeLines } from './support.js';

const folder = temporaryFolder();
afterAll(() => folder.remove());

const gpt2 = modelFixture('gpt2.ts.dynamic').path;
const llama = modelFixture('llama.ts.dynamic').path;
const bert = modelFixture('bert.ts.dynamic').path;

const relative = (a: number, b: number) => Math.abs(a - b) / Math.abs(b);
const report = async (...args: string[]) => (await cliJson('eval', ...args)).json;
const rows = (json: JsonReport) => json.models as JsonReport[];

interface Run {
  readonly base: string;
  readonly adapted: string;
  readonly adapter: string;
  readonly merged: string;
  readonly data: readonly string[];
  /** What `train` measured at the end. */
  readonly logged: JsonReport;
}

/** Trains an adapter for a few steps, evaluating on data of its own, and folds it. */
async function trained(name: string, base: string, label: 'class' | 'tokens', loss: string): Promise<Run> {
  const at = (file: string) => folder.path(`${name}-${file}`);
  const records = countingRecords(30, label);
  const train = writeLines(at('train.jsonl'), records.slice(0, 16));
  const val = writeLines(at('val.jsonl'), records.slice(16));
  await cli(
    'insert',
    base,
    '--targets',
    'all-linear',
    '--rank',
    '2',
    '--dropout',
    '0.2',
    '-o',
    at('in.onnx'),
  );
  const command = ['train', at('in.onnx'), '--loss', loss, '--lr', '0.02', '--data', train];
  const { json } = await cliJson(...command, '--eval-data', val, '--steps', '4', '-o', at('run'));
  const adapter = json.adapter as string;
  expect((await cli('fold', base, '-a', adapter, '-o', at('merged.onnx'))).status).toBe(0);
  const [logged] = readFileSync(json.log as string, 'utf8')
    .trim()
    .split('\n')
    .flatMap((line) => (JSON.parse(line) as { eval?: JsonReport }).eval ?? []);
  const data = ['--loss', loss, '--data', val];
  return { base, adapted: at('in.onnx'), adapter, merged: at('merged.onnx'), data, logged: logged! };
}

describe.each([
  ['GPT-2', gpt2, 'tokens', 'causal-lm'],
  ['BERT', bert, 'class', 'classification'],
] as const)('%s', (name, model, label, loss) => {
  let run: Run;
  beforeAll(async () => {
    run = await trained(name, model, label, loss);
  });

  it('measures what train logs, and the base beside it', async () => {
    const { status, json } = await cliJson('eval', run.base, '-a', run.adapter, ...run.data);
    expect(status).toBe(0);
    const [base, adapter] = rows(json);
    expect([base?.name, base?.adapter, adapter?.adapter]).toEqual(['base', null, run.adapter]);
    expect(relative(adapter?.loss, run.logged.loss)).toBeLessThan(1e-6);
    expect(adapter?.metrics).toEqual(run.logged.metrics);
    expect(adapter?.examples).toBe(14);
    expect(adapter?.weight).toBe(run.logged.weight);
    expect(relative(base?.loss, run.logged.loss)).toBeGreaterThan(1e-2);
    if (loss === 'causal-lm') expect(adapter?.perplexity).toBeCloseTo(Math.exp(adapter?.loss), 10);
    else expect(adapter).not.toHaveProperty('perplexity');
    expect(adapter?.tokensPerSecond).toBeGreaterThan(0);
    expect(json.examples).toBe(14);
  });

  it('gives one number for an adapter beside the base and folded into it, whatever the batches', async () => {
    const [unfolded] = rows(await report(run.base, '-a', run.adapter, '--no-base', ...run.data));
    for (const size of ['1', '5', '14']) {
      const [merged] = rows(await report(run.merged, '--batch-size', size, ...run.data));
      expect(relative(merged?.loss, unfolded?.loss), size).toBeLessThan(1e-5);
    }
  });

  it('refuses an adapter of other weights, unless they are wanted', async () => {
    const given = [run.merged, '-a', run.adapter, '--no-base', ...run.data];
    const refused = await cli('eval', ...given);
    expect([refused.status, refused.stdout]).toEqual([3, '']);
    expect(refused.stderr).toContain('--any-base');
    expect(await cli('eval', ...given, '--any-base', '--quiet')).toMatchObject({ status: 0, stdout: '' });
  });

  it('leaves dropout out of a model with the adapter inside', async () => {
    const [inside] = rows(await report(run.adapted, ...run.data));
    const [base] = rows(await report(run.base, ...run.data));
    // An inserted adapter starts as the identity.
    expect(relative(inside?.loss, base?.loss)).toBeLessThan(1e-6);
  });
});

it('is the mean over the tokens that count, of what the logits say', async () => {
  const sequences = [
    [5, 6, 7, 8, 9],
    [30, 2, 11],
  ];
  const data = datasetOf(sequences.map((ids) => ({ input_ids: ids, labels: ids })));
  const session = await createSession(gpt2);
  let [sum, count] = [0, 0];
  for (const ids of sequences) {
    const row = (value: (i: number) => number) =>
      tensorOfNumbers(
        'int64',
        [1, ids.length],
        ids.map((_, i) => value(i)),
      );
    const all = { input_ids: row((i) => ids[i]!), attention_mask: row(() => 1), position_ids: row((i) => i) };
    const names = new Set(session.inputs.map(({ name }) => name));
    const feeds = Object.fromEntries(Object.entries(all).filter(([name]) => names.has(name)));
    const { logits } = await session.run(feeds, ['logits']);
    const scores = numbersOf(logits!);
    const width = logits!.dims.at(-1)!;
    for (let t = 0; t + 1 < ids.length; t++) {
      const at = Array.from(scores.subarray(t * width, (t + 1) * width), Number);
      sum += Math.log(at.reduce((z, score) => z + Math.exp(score), 0)) - at[ids[t + 1]!]!;
      count++;
    }
  }
  await session.release();
  const { models } = await evaluate({ model: gpt2, data, loss: 'causal-lm' });
  expect(models[0]!.weight).toBe(count);
  expect(relative(models[0]!.loss, sum / count)).toBeLessThan(1e-5);
});

it('does not depend on how a checkpoint was exported: pasts, branches, fixed sizes, fused attention', async () => {
  const ids = [3, 9, 14, 4, 21].map((start) => [start, start + 1, 2, 7, 5]);
  const data = datasetOf(ids.map((row) => ({ input_ids: row, labels: row })));
  const measure = async (model: string | Model) =>
    (await evaluate({ model, data, loss: 'causal-lm', session: { threads: 1 } })).models[0]!.loss;
  const grown = await measure(fixturePath('decoders', 'gpt2.dynamo.onnx'));
  expect(relative(await measure(fixturePath('decoders', 'gpt2.merged.onnx')), grown)).toBeLessThan(1e-5);
  const free = await measure(gpt2);
  expect(relative(await measure(modelFixture('gpt2.ts.static').path), free)).toBeLessThan(1e-5);
  const fused = fixturePath('fused', 'llama.genai.fp32.onnx');
  const model = load(fused);
  await insert(model, { method: 'lora', config: { rank: 2 }, targeting: { targets: ['q_proj'] } });
  expect(relative(await measure(model), await measure(fused))).toBeLessThan(1e-6);
});

it('compares adapters of every kind of file in a table', async () => {
  const data = writeLines(folder.path('llama.jsonl'), countingRecords(6, 'tokens'));
  const served = folder.path('lora.onnx_adapter');
  const lora = peftFolder('llama-lora');
  const exported = ['export', '--format', 'onnx_adapter', '--model', llama, '-o', served];
  const made = await cli(...exported.toSpliced(1, 0, lora));
  expect(made.stderr + made.status).toBe('0');
  const adapters = [lora, peftFolder('llama-dora'), peftFolder('llama-prompt'), served];
  const given = [llama, '--loss', 'causal-lm', '--data', data, ...adapters.flatMap((path) => ['-a', path])];
  const [base, ...measured] = rows(await report(...given));
  const [first, dora, prompt, fourth] = measured.map(({ loss }) => loss as number);
  expect(measured.map(({ adapter }) => adapter)).toEqual(adapters);
  expect(relative(fourth!, first!)).toBeLessThan(1e-6);
  for (const loss of [first, dora, prompt]) expect(relative(loss!, base?.loss)).toBeGreaterThan(1e-4);
  const { status, stdout, stderr } = await cli('eval', ...given);
  expect(status).toBe(0);
  expect(stdout).toContain('against base');
  expect(stdout).toContain(dora!.toFixed(4));
  expect(stdout.split('\n').filter((line) => line.includes('llama-dora'))).toHaveLength(1);
  expect(stderr).toContain('over 6 examples');
});

it('reads texts, and takes classes in the order of the training', async () => {
  const tokenizer = ['--tokenizer', writeTokenizer(folder.path())];
  const text = writeLines(folder.path('texts.jsonl'), [
    { text: 'the cat sat', label: 'warm' },
    { text: 'the cat', label: 'cold' },
  ]);
  const given = [bert, '--loss', 'classification', '--data', text, ...tokenizer];
  const sorted = await cliJson('eval', ...given);
  expect(sorted.json.classes).toEqual(['cold', 'warm']);
  const same = await report(...given, '--classes', 'cold,warm');
  const other = await report(...given, '--classes', 'warm,mild,cold');
  expect(rows(same)[0]?.loss).toBe(rows(sorted.json)[0]?.loss);
  expect(relative(rows(other)[0]?.loss, rows(same)[0]?.loss)).toBeGreaterThan(1e-3);

  const quick = (file: string) => fixturePath('quickstart', file);
  const plain = writeText('plain.txt', readFileSync(quick('train.txt'), 'utf8').slice(0, 1500));
  const lm = [quick('model.onnx'), '--loss', 'causal-lm', '--tokenizer', quick('tokenizer.json')];
  const blocks = await report(...lm, '--data', plain, '--max-length', '16');
  expect(blocks.examples).toBeGreaterThan(4);
  expect(rows(blocks)[0]?.tokens).toBe(16 * blocks.examples);
});

function writeText(name: string, text: string): string {
  writeFileSync(folder.path(name), text);
  return folder.path(name);
}

describe('wrong input', () => {
  const lines = (name: string, records: readonly object[]) => writeLines(folder.path(name), records);
  const lm = () => ['--loss', 'causal-lm', '--data', lines('lm.jsonl', countingRecords(3, 'tokens'))];

  it.each([
    ['no loss', () => [gpt2, ...lm().slice(2)], 2, '--loss causal-lm'],
    ['no such output', () => [gpt2, ...lm(), '--loss-set', 'output=scores'], 4, 'logits'],
    ['an output that the loss cannot read', () => [bert, ...lm()], 3, 'axes'],
    ['no such model', () => [folder.path('none.onnx'), ...lm()], 3, 'none.onnx'],
    [
      'no labels',
      () => [bert, '--loss', 'classification', '--data', lines('bare.jsonl', [{ input_ids: [5, 6] }])],
      3,
      "no tensor 'labels'",
    ],
    [
      'no data',
      () => [gpt2, '--loss', 'causal-lm', '--data', writeText('empty.jsonl', '')],
      3,
      'no examples',
    ],
    ['an adapter of another model', () => [gpt2, ...lm(), '-a', peftFolder('llama-lora')], 4, 'no module'],
    ['no adapter', () => [gpt2, ...lm(), '-a', folder.path('nowhere')], 3, 'nowhere'],
    [
      'a map that is none',
      () => [llama, ...lm(), '-a', peftFolder('llama-lora'), '--map', 'x.json'],
      3,
      'x.json',
    ],
  ] as const)('%s', async (_what, args, status, says) => {
    const outcome = await cli('eval', ...args());
    expect(outcome.stderr).toContain(says);
    expect(outcome.status).toBe(status);
    expect(outcome.stdout).toBe('');
  });

  it('an adapter for a model that holds one, or for other weights', async () => {
    const adapted = folder.path('holds.onnx');
    await cli('insert', llama, '--targets', 'q_proj', '-o', adapted);
    const inside = await cli('eval', adapted, ...lm(), '-a', peftFolder('llama-lora'));
    expect([inside.status, inside.stdout]).toEqual([7, '']);
    const data = datasetOf([{ input_ids: [1, 2], labels: [1, 2] }]);
    const wrong = { model: llama, data, loss: 'causal-lm', batchSize: 0 };
    await expect(evaluate(wrong)).rejects.toMatchObject({ code: 'E_USAGE' });
    const nothing = evaluate({ ...wrong, batchSize: 2, data: datasetOf([]) });
    await expect(nothing).rejects.toMatchObject({ code: 'E_INVALID_DATA' });
  });

  it('an interruption ends with the models that are done', async () => {
    const stop = new AbortController();
    const adapters = [peftFolder('llama-lora'), peftFolder('llama-dora')];
    const data = datasetOf([{ input_ids: [1, 2, 3], labels: [1, 2, 3] }]);
    const { reason, models } = await evaluate({
      model: llama,
      adapters,
      data,
      loss: 'causal-lm',
      signal: stop.signal,
      onEvent: (event) => {
        if (event.type === 'end' && event.adapter === adapters[0]) stop.abort();
      },
    });
    expect(reason).toBe('interrupted');
    expect(models.map(({ name }) => name)).toEqual(['base', adapters[0]]);
  });
});
