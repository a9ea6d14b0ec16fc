/** Several adapters in one graph, chosen by an input: every choice computes what its adapter alone computes. */
import { afterAll, describe, expect, it } from 'vitest';
import type { InsertEntry } from '../passes/insert/entry.js';
import { writeAdapter } from '../runtime/adapter-file.js';
import { type CombineOptions, combine } from '../runtime/library/combine.js';
import type { Model } from '../src/model.js';
import { readModel } from '../src/onnx/index.js';
import { cli, cliJson, temporaryFolder } from './cli/support.js';
import { adapterOn, difference, lora, tokensFor } from './helpers/combining.js';
import { modelFixture } from './helpers/fixtures.js';
import { type Feeds, numbers, runModel } from './helpers/run.js';
import { int64 } from './targets/driver.js';

const folder = temporaryFolder();
afterAll(() => folder.remove());

const bert = modelFixture('bert.dynamo.dynamic').path;
const gpt2 = modelFixture('gpt2.ts.dynamic').path;

const choose = (index: number) => int64([index], []);

async function output(model: Model, feeds: Feeds): Promise<number[]> {
  return numbers(Object.values(await runModel(model, feeds))[0]);
}

interface Case {
  readonly name: string;
  readonly base: string;
  readonly adapters: Readonly<Record<string, readonly InsertEntry[]>>;
  readonly none?: boolean;
  /** Modules at which structures differ. */
  readonly separate: number;
}

const CASES: readonly Case[] = [
  {
    name: 'three LoRAs of one structure, and the base',
    base: bert,
    adapters: {
      fr: [lora(3, ['query', 'value'])],
      de: [lora(3, ['query', 'value'])],
      it: [lora(3, ['query', 'value'])],
    },
    separate: 0,
  },
  {
    name: 'two methods',
    base: bert,
    adapters: {
      low: [lora(2, ['query', 'dense'])],
      scaled: [{ method: 'ia3' }],
      norms: [{ method: 'ln-tuning' }, { method: 'houlsby', config: { size: 4 } }],
    },
    separate: 2,
  },
  {
    name: 'ranks that differ, modules in common and not',
    base: gpt2,
    adapters: { a: [lora(2, ['c_attn'])], b: [lora(2, ['c_attn', 'c_fc'])], c: [lora(4, ['c_fc'])] },
    separate: 0,
  },
  {
    name: 'stacks and frozen tensors in common',
    base: bert,
    adapters: {
      a: [{ method: 'vera', config: { rank: 4 } }, lora(2, ['query'])],
      b: [{ method: 'vera', config: { rank: 4 } }, lora(2, ['query'])],
      c: [{ method: 'full', targeting: { targets: ['classifier'] } }],
    },
    separate: 0,
  },
  {
    name: 'prefixes, without an entry for the base',
    base: bert,
    adapters: {
      a: [{ method: 'prefix', config: { length: 3 } }],
      b: [{ method: 'prefix', config: { length: 3 } }],
    },
    none: false,
    separate: 0,
  },
];

describe.each(CASES)('$name', { timeout: 60_000 }, ({ base, adapters, none = true, separate }) => {
  it('computes at each index what that adapter computes alone', async () => {
    const made = await Promise.all(
      Object.entries(adapters).map(async ([name, entries], i) => ({
        name,
        ...(await adapterOn(base, i + 1, entries)),
      })),
    );
    const options: CombineOptions = {
      model: base,
      adapters: Object.fromEntries(made.map(({ name, file }) => [name, file])),
      none,
      run: { validate: 'edit' },
    };
    const { model, names, input, separate: found } = await combine(options);
    expect(names).toEqual([...(none ? ['none'] : []), ...Object.keys(adapters)]);
    expect(found).toBe(separate);
    const original = readModel(base);
    const feeds = tokensFor(original, 2);
    const expected = await Promise.all(
      [...(none ? [original] : []), ...made.map(({ alone }) => alone)].map((alone) => output(alone, feeds)),
    );
    for (const [index, wanted] of expected.entries()) {
      const results = await output(model, { ...feeds, [input]: choose(index) });
      // The arithmetic is the same; only fusions of the runtime may differ.
      expect(difference(wanted, results), names[index]).toBeLessThan(2e-6);
      for (const other of expected.filter((_, i) => i !== index))
        expect(difference(other, results), names[index]).toBeGreaterThan(1e-3);
    }
    const beyond = runModel(model, { ...feeds, [input]: choose(names.length) }, { logSeverityLevel: 4 });
    await expect(beyond).rejects.toThrow(/out of/);
  });
});

describe('what cannot be combined', () => {
  const refusal = async (adapters: CombineOptions['adapters'], more: object = {}) =>
    combine({ model: bert, adapters, ...more }).then(
      () => undefined,
      (error: Error & { code: string }) => error,
    );

  it('is said with what to do', async () => {
    const one = (await adapterOn(bert, 1, [lora(2, ['query'])])).file;
    const prefix = (await adapterOn(bert, 1, [{ method: 'prefix', config: { length: 2 } }])).file;
    const other = (await adapterOn(gpt2, 1, [lora(2, ['c_attn'])])).file;
    expect(await refusal({ none: one })).toMatchObject({ code: 'E_USAGE' });
    expect(await refusal({ a: one }, { none: false })).toMatchObject({ code: 'E_USAGE' });
    expect(await refusal({ a: prefix })).toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringContaining('--no-none'),
    });
    expect(await refusal({ a: other })).toMatchObject({ code: 'E_INVALID_DATA' });
    expect(await refusal({ a: other }, { anyBase: true })).toMatchObject({ code: 'E_NO_MATCH' });
  });
});

it('peft-compile combine writes the model and its names', async () => {
  const files: string[] = [];
  for (const [i, name] of ['fr', 'de'].entries()) {
    const { file } = await adapterOn(bert, i + 1, [lora(2, ['query'])]);
    await writeAdapter(folder.path(`${name}.safetensors`), file.record, file.tensors);
    files.push('--adapter', `${name}=${folder.path(`${name}.safetensors`)}`);
  }
  const out = folder.path('multi.onnx');
  const { status, json } = await cliJson('combine', bert, ...files, '-o', out);
  expect(status).toBe(0);
  expect(json).toMatchObject({ out, input: 'adapter', names: ['none', 'fr', 'de'] });
  const written = readModel(out);
  expect(JSON.parse(written.metadata.get('peft_compile.adapters') ?? '')).toEqual({
    version: 1,
    input: 'adapter',
    by: 'run',
    names: ['none', 'fr', 'de'],
  });
  expect(written.graph.inputs.at(-1)?.name).toBe('adapter');
  const again = await cli('combine', bert, ...files, '-o', out);
  expect(again.status).toBe(6);
  const printed = await cli('combine', bert, ...files, '--force', '-o', out);
  expect(printed.stdout).toMatch(/1\s+fr\s/);
  expect((await cli('combine', bert, '-a', 'x', '-o', out)).stderr).toContain('name=file');
});
