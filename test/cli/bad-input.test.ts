/** Bad input: each is refused with its exit status, names the file, node or tensor, says what to do, and writes nothing. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AdapterParam, allParams } from '../../passes/adapter-record.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { tensorOfNumbers } from '../../runtime/host-tensor.js';
import { insert } from '../../runtime/library/insert.js';
import { type WritableTensor, writeSafetensors } from '../../runtime/safetensors.js';
import { readModel } from '../../src/onnx/index.js';
import { elementsOf, type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { randomParameters } from '../helpers/adapters.js';
import { fixturePath, modelFixture } from '../helpers/fixtures.js';
import { cli, countingRecords, temporaryFolder, writeLines } from './support.js';

const folder = temporaryFolder();
const at = folder.path;
afterAll(() => folder.remove());

const bert = modelFixture('bert.ts.dynamic').path;
const gpt2 = modelFixture('gpt2.ts.dynamic').path;
const adapted = at('adapted.onnx');
const adapter = at('run', 'adapter.safetensors');
const records = countingRecords(16, 'class') as Record<string, unknown>[];

beforeAll(async () => {
  await cli('insert', bert, '-t', 'query', 'value', '--rank', '2', '-o', adapted);
  const data = writeLines(at('good.jsonl'), records);
  const trained = await cli(
    'train',
    adapted,
    '--loss',
    'classification',
    '-d',
    data,
    '--steps',
    '3',
    '-o',
    at('run'),
  );
  expect(trained.status).toBe(0);
  expect((await cli('fold', bert, '-a', adapter, '-o', at('merged.onnx'))).status).toBe(0);
});

/** Runs a command that must fail, and checks that the folder holds what it held. */
async function refused(args: readonly string[], status: number, ...says: (string | RegExp)[]): Promise<void> {
  const before = readdirSync(at(), { recursive: true }).sort();
  const outcome = await cli(...args);
  for (const words of says) expect(outcome.stderr).toMatch(words instanceof RegExp ? words : escaped(words));
  expect(outcome.stderr).not.toContain('defect of peft-compile');
  expect(outcome.status).toBe(status);
  expect(readdirSync(at(), { recursive: true }).sort()).toEqual(before);
}

const escaped = (text: string) => new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));

describe('models', () => {
  it('that are missing, empty, cut or of another kind', async () => {
    const cut = at('cut.onnx');
    writeFileSync(cut, readFileSync(bert).subarray(0, 20_000));
    writeFileSync(at('empty.onnx'), '');
    for (const verb of [['inspect'], ['print'], ['verify', bert], ['insert', '-o', at('out.onnx')]]) {
      await refused([...verb, at('nowhere.onnx')], 3, 'nowhere.onnx', 'E_IO');
      await refused([...verb, at('empty.onnx')], 3, 'empty.onnx');
      await refused([...verb, cut], 3, 'cut.onnx', 'E_CORRUPT_MODEL', /export or download it again/);
      await refused([...verb, at('good.jsonl')], 3, 'good.jsonl', 'E_CORRUPT_MODEL');
      await refused([...verb, at()], 3, /regular file/);
    }
  });

  it('whose bytes were changed are read or refused, never a crash', async () => {
    const bytes = readFileSync(bert);
    for (let i = 0; i < 40; i++) {
      const mutated = Buffer.from(bytes);
      // Multiplicative steps reach the graph and the header as well as the weights.
      const position = (i * 2654435761) % 30_000;
      mutated[position] = (mutated[position] ?? 0) ^ (1 << (i % 8));
      writeFileSync(at('mutated.onnx'), mutated);
      const outcome = await cli('inspect', at('mutated.onnx'));
      expect([0, 3]).toContain(outcome.status);
      if (outcome.status === 3) expect(outcome.stderr).toContain('mutated.onnx');
    }
  });

  it('whose external data escapes the folder', async () => {
    const fixture = modelFixture('bert.dynamo.external').path;
    mkdirSync(at('outside'));
    mkdirSync(at('inside'));
    copyFileSync(fixture, at('inside', 'model.onnx'));
    copyFileSync(`${fixture}.data`, at('outside', 'secret.data'));
    symlinkSync(at('outside', 'secret.data'), at('inside', 'bert.dynamo.external.onnx.data'));
    await refused(
      ['insert', at('inside', 'model.onnx'), '-o', at('out.onnx')],
      3,
      'E_EXTERNAL_DATA',
      'bert.dynamo.external.onnx.data',
    );
  });

  it('whose external data is missing or short', async () => {
    const fixture = modelFixture('bert.dynamo.external').path;
    mkdirSync(at('alone'));
    copyFileSync(fixture, at('alone', 'model.onnx'));
    const data = at('alone', 'bert.dynamo.external.onnx.data');
    await refused(
      ['insert', at('alone', 'model.onnx'), '-o', at('out.onnx')],
      3,
      'bert.dynamo.external.onnx.data',
    );
    writeFileSync(data, readFileSync(`${fixture}.data`).subarray(0, 100));
    await refused(['insert', at('alone', 'model.onnx'), '-o', at('out.onnx')], 3, 'E_EXTERNAL_DATA');
  });

  it('that hold an adapter already, or none', async () => {
    await refused(['insert', adapted, '-o', at('out.onnx')], 7, 'already holds an adapter');
    await refused(['emit', bert, '--loss', 'classification', '-o', at('out')], 4, 'peft-compile insert');
    await refused(
      ['train', bert, '--loss', 'classification', '-d', at('good.jsonl'), '-o', at('out')],
      4,
      'peft-compile insert',
    );
  });
});

describe('adapter files', () => {
  it('that were edited by hand: indices of a sparse one as numbers, or outside the weight', async () => {
    const model = readModel(bert);
    const { record } = await insert(model, { method: 'pafi' });
    const good = randomParameters(record, model);
    const indices = allParams(record).find(({ dtype }) => dtype === 'int64') as AdapterParam;
    const count = elementsOf(good.get(indices.key) as Tensor);
    for (const [dtype, says] of [
      ['float32', 'holds float32'],
      ['int64', /outside its table/],
    ] as const) {
      const outside = Array.from({ length: count }, (_, i) => (1 << 20) + i);
      const edited = tensorOfNumbers(dtype, [count], outside);
      await writeAdapter(
        at('edited.safetensors'),
        record,
        new Map<string, WritableTensor>(good).set(indices.key, edited),
        {
          force: true,
        },
      );
      await refused(
        ['fold', bert, '-a', at('edited.safetensors'), '-o', at('never.onnx'), '--any-base'],
        3,
        says,
      );
    }
  });
});

describe('outputs', () => {
  it('that exist are kept without --force', async () => {
    const before = readFileSync(adapted);
    await refused(['insert', bert, '-o', adapted], 6, 'adapted.onnx', '--force');
    expect(readFileSync(adapted).equals(before)).toBe(true);
    await refused(['fold', bert, '-a', adapter, '-o', at('merged.onnx')], 6, 'merged.onnx', '--force');
    await refused(
      ['train', adapted, '--loss', 'classification', '-d', at('good.jsonl'), '-o', at('run')],
      6,
      '--force',
      '--resume',
    );
    expect(
      (await cli('insert', bert, '-t', 'query', 'value', '--rank', '2', '-o', adapted, '--force')).status,
    ).toBe(0);
    expect(readFileSync(adapted).equals(before)).toBe(true);
  });

  it('in places that cannot be written to', async () => {
    await refused(['insert', bert, '-o', at('good.jsonl', 'out.onnx')], 3, 'good.jsonl');
    await refused(['fold', bert, '-a', adapter, '-o', at('run')], 3, at('run'));
  });
});

describe('data', () => {
  const train = (data: string) => [
    'train',
    adapted,
    '--loss',
    'classification',
    '-d',
    data,
    '--steps',
    '2',
    '-o',
    at('bad'),
  ];
  const changed = (index: number, fields: Record<string, unknown>): string =>
    writeLines(
      at('changed.jsonl'),
      records.map((record, i) => (i === index ? { ...record, ...fields } : record)),
    );

  it('that is missing, of an unknown kind or no JSON', async () => {
    await refused(train(at('nowhere.jsonl')), 3, 'nowhere.jsonl');
    await refused(train(bert), 2, '.jsonl', '.safetensors');
    writeFileSync(at('broken.jsonl'), `${JSON.stringify(records[0])}\n{"input_ids": [1,\n`);
    await refused(train(at('broken.jsonl')), 3, 'broken.jsonl:2');
    writeFileSync(at('texts.jsonl'), '{"text": "hello", "label": 1}\n');
    await refused(train(at('texts.jsonl')), 2, '--tokenizer');
  });

  it('of the wrong shape, dtype or range, with missing and unknown tensors', async () => {
    await refused(train(changed(3, { labels: undefined })), 3, 'changed.jsonl:4', "'labels'");
    await refused(train(changed(5, { labels: [1, 2] })), 3, 'changed.jsonl:6', "'labels'", '[2]');
    await refused(train(changed(2, { input_ids: [[1, 2]] })), 3, 'changed.jsonl:3', "'input_ids'", '[1, 2]');
    await refused(train(changed(1, { input_ids: [1, 2.5] })), 3, 'changed.jsonl:2', "'input_ids'", '2.5');
    await refused(train(changed(1, { input_ids: ['a'] })), 3, 'changed.jsonl:2');
    await refused(train(changed(0, { pixels: [1] })), 3, 'changed.jsonl:1', "'pixels'");
  });

  it('in safetensors whose axes differ, or that are cut', async () => {
    const tensor = (dims: number[]) =>
      tensorOfBytes('int64', dims, new Uint8Array(8 * dims.reduce((a, b) => a * b, 1)));
    await writeSafetensors(
      at('axes.safetensors'),
      new Map([
        ['input_ids', tensor([4, 3])],
        ['labels', tensor([5])],
      ]),
    );
    await refused(train(at('axes.safetensors')), 3, 'axes.safetensors', "'labels'", '5', '4');
    writeFileSync(at('short.safetensors'), readFileSync(at('axes.safetensors')).subarray(0, 150));
    await refused(train(at('short.safetensors')), 3, 'short.safetensors');
  });

  it('whose tokens the model does not have', async () => {
    const outcome = await cli(...train(changed(4, { input_ids: [5, 100_000] })));
    expect(outcome.status).not.toBe(0);
    expect(outcome.stderr).not.toContain('defect of peft-compile');
    expect(outcome.stderr).toMatch(/Gather|input_ids|word_embeddings/);
  });
});

describe('training', () => {
  it('that diverges stops and names the first bad tensor and the step', async () => {
    const outcome = await cli(
      ...['train', adapted, '--loss', 'classification', '-d', at('good.jsonl'), '--lr', '1e30'],
      ...['--steps', '9', '-o', at('diverged')],
    );
    expect(outcome.status).toBe(5);
    expect(outcome.stderr).toMatch(/E_NON_FINITE.*step \d/);
    expect(outcome.stderr).toMatch(/learning rate/);
    expect(existsSync(at('diverged', 'adapter.safetensors'))).toBe(false);
  });
});

describe('adapters', () => {
  it('of another base, folded twice, or no adapters at all', async () => {
    await refused(['fold', gpt2, '-a', adapter, '-o', at('out.onnx')], 3, gpt2, '--any-base');
    await refused(
      ['fold', at('merged.onnx'), '-a', adapter, '-o', at('out.onnx')],
      3,
      'folded',
      '--any-base',
    );
    await refused(['fold', bert, '-a', at('good.jsonl'), '-o', at('out.onnx')], 3, 'good.jsonl');
    await refused(['fold', bert, '-a', at('nowhere'), '-o', at('out.onnx')], 3, 'nowhere');
    await refused(
      ['fold', bert, '-a', modelFixture('bert.ts.dynamic').casesPath, '-o', at('out.onnx')],
      3,
      'bert.safetensors',
    );
    writeFileSync(at('cut.safetensors'), readFileSync(adapter).subarray(0, -16));
    await refused(['fold', bert, '-a', at('cut.safetensors'), '-o', at('out.onnx')], 3, 'cut.safetensors');
  });
});

describe('configuration', () => {
  it('modules that are missing or wrong', async () => {
    await refused(['insert', bert, '--config', at('nowhere.mjs'), '-o', at('out.onnx')], 2, 'nowhere.mjs');
  });

  it('of a tokenizer', async () => {
    const text = fixturePath('quickstart', 'train.txt');
    await refused(
      [
        'train',
        adapted,
        '--loss',
        'classification',
        '-d',
        text,
        '--tokenizer',
        at('good.jsonl'),
        '-o',
        at('out'),
      ],
      3,
      'good.jsonl',
    );
  });
});
