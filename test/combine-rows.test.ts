/** Adapters mixed in one batch: every row computes what its adapter alone computes for it. */
import { describe, expect, it } from 'vitest';
import { allParams } from '../passes/adapter-record.js';
import type { InsertEntry } from '../passes/insert/entry.js';
import { combine } from '../runtime/library/combine.js';
import { tensorOf } from '../src/literals.js';
import type { Model } from '../src/model.js';
import { readModel } from '../src/onnx/index.js';
import type { Tensor } from '../src/tensor.js';
import { adapterOn, difference, lora, rowsIn, tokensFor } from './helpers/combining.js';
import { modelFixture } from './helpers/fixtures.js';
import { type Feeds, numbers, runModel } from './helpers/run.js';
import { adaptersOf, byRow, choiceOf } from './methods/mappings/by-row.js';
import { type MethodMapping, type Reference, references, TensorFile } from './methods/reference-support.js';
import { int64 } from './targets/driver.js';

const bert = modelFixture('bert.dynamo.dynamic').path;
const gpt2 = modelFixture('gpt2.ts.dynamic').path;
const llama = modelFixture('llama.dynamo.dynamic').path;
const fixed = modelFixture('bert.ts.static').path;

async function rowsOf(model: Model, feeds: Feeds, batch: number): Promise<number[][]> {
  const all = numbers(Object.values(await runModel(model, feeds))[0]);
  const size = all.length / batch;
  return Array.from({ length: batch }, (_, row) => all.slice(row * size, (row + 1) * size));
}

interface Case {
  readonly name: string;
  readonly base: string;
  readonly adapters: Readonly<Record<string, readonly InsertEntry[]>>;
  readonly none?: boolean;
  readonly sameSeed?: boolean;
  readonly separate?: number;
}

const CASES: readonly Case[] = [
  {
    name: 'LoRAs of different rank, modules in common and not',
    base: bert,
    adapters: {
      a: [lora(3, ['query', 'classifier'])],
      b: [lora(1, ['query', 'dense'])],
      c: [lora(4, ['dense', 'word_embeddings'])],
    },
  },
  {
    name: 'embeddings',
    base: bert,
    adapters: { a: [lora(3, ['word_embeddings'])], b: [lora(2, ['word_embeddings', 'query'])] },
  },
  {
    name: 'flattened activations',
    base: gpt2,
    adapters: { a: [lora(3, ['c_attn', 'c_fc'])], b: [lora(2, ['c_attn', 'c_proj'])] },
  },
  {
    name: 'a batch of fixed size',
    base: fixed,
    adapters: { a: [lora(3, ['query', 'classifier'])], b: [lora(2, ['query'])] },
  },
  {
    name: 'vectors, bottlenecks and factors',
    base: bert,
    adapters: {
      scaled: [{ method: 'ia3' }],
      low: [lora(2, ['value', 'key'])],
      blocks: [{ method: 'houlsby', config: { size: 4, scaling: 'learned' } }],
    },
    separate: 4,
  },
  {
    name: 'other factors',
    base: llama,
    adapters: {
      a: [{ method: 'lora-xs', config: { rank: 2 }, targeting: { targets: ['v_proj'] } }],
      b: [{ method: 'adalora', config: { rank: 3 }, targeting: { targets: ['v_proj'] } }],
      c: [{ method: 'parallel', config: { size: 3 } }],
    },
    separate: 2,
  },
  {
    name: 'vectors around frozen matrices in common',
    base: bert,
    adapters: {
      a: [{ method: 'vera', config: { rank: 4 } }],
      b: [{ method: 'vera', config: { rank: 4 } }],
    },
    sameSeed: true,
  },
  {
    name: 'prefixes, without an entry for the base',
    base: bert,
    adapters: {
      a: [{ method: 'prefix', config: { length: 3 } }],
      b: [{ method: 'prefix', config: { length: 3 } }],
    },
    none: false,
  },
  {
    name: 'prompts',
    base: gpt2,
    adapters: {
      a: [{ method: 'prompt', config: { length: 2 } }],
      b: [{ method: 'prompt', config: { length: 2 } }],
    },
    none: false,
  },
];

describe.each(CASES)(
  '$name',
  { timeout: 60_000 },
  ({ base, adapters, none = true, sameSeed, separate = 0 }) => {
    it('computes for each row what its adapter alone computes', async () => {
      const made = await Promise.all(
        Object.entries(adapters).map(async ([name, entries], i) => ({
          name,
          ...(await adapterOn(base, i + 1, entries, sameSeed ? 1 : i + 1)),
        })),
      );
      const combined = await combine({
        model: base,
        adapters: Object.fromEntries(made.map(({ name, file }) => [name, file])),
        by: 'row',
        none,
        run: { validate: 'edit' },
      });
      const { model, names, input } = combined;
      expect(combined.separate).toBe(separate);
      const original = readModel(base);
      const feeds = tokensFor(original, 4);
      const batch = rowsIn(feeds);
      const alone = [...(none ? [original] : []), ...made.map((one) => one.alone)];
      const expected = await Promise.all(alone.map((one) => rowsOf(one, feeds, batch)));
      // Every adapter meets every row.
      for (let shift = 0; shift < names.length; shift++) {
        const choice = Array.from({ length: batch }, (_, row) => (row + shift) % names.length);
        const found = await rowsOf(model, { ...feeds, [input]: int64(choice, [batch]) }, batch);
        for (const [row, index] of choice.entries()) {
          expect(difference(expected[index]![row]!, found[row]!), `${names[index]} ${row}`).toBeLessThan(
            3e-6,
          );
          for (const other of names.keys())
            if (other !== index)
              expect(difference(expected[other]![row]!, found[row]!)).toBeGreaterThan(1e-4);
        }
      }
      const beyond = int64(new Array<number>(batch).fill(names.length), [batch]);
      await expect(runModel(model, { ...feeds, [input]: beyond }, { logSeverityLevel: 4 })).rejects.toThrow(
        /out of/,
      );
    });
  },
);

describe('rows that cannot be', () => {
  const refusal = async (base: string, entries: readonly InsertEntry[], other = entries) => {
    const a = (await adapterOn(base, 1, entries)).file;
    const b = (await adapterOn(base, 2, other)).file;
    return combine({ model: base, adapters: { a, b }, by: 'row' }).then(
      () => undefined,
      (error: Error & { code: string }) => error,
    );
  };

  it.each([
    ['dora', [{ method: 'dora', config: { rank: 2 } }]],
    ['bias', [lora(2, ['query'], { bias: 'lora_only' })]],
    ['frozen', [{ method: 'vera', config: { rank: 4 } }]],
    ['positions', [lora(2, ['position_embeddings'])]],
    ['prefix', [{ method: 'prefix', config: { length: 3 } }]],
  ] as const)('are refused: %s', async (name, entries) => {
    expect(await refusal(bert, entries)).toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringMatching(name === 'prefix' ? /--no-none/ : /--by run/),
    });
  });
});

describe('recorded by peft', () => {
  const reference = references().find(({ name }) => name === 'bert-lora-by-row') as Reference;
  const { translate } = byRow['lora-by-row'] as MethodMapping;

  // Losses and gradients of adapters that train together: test/methods/reference-*.test.ts.
  it.each(['bert.ts.dynamic', 'bert.dynamo.dynamic'])(
    'logits on %s, before and after training',
    async (fixture) => {
      const { path } = modelFixture(fixture);
      const file = new TensorFile(reference.name);
      const batches = new TensorFile(reference.batches);
      const inputs = await batches.batch(
        0,
        readModel(path).graph.inputs.map(({ name }) => name ?? ''),
      );
      for (const [prefix, state] of [
        ['init', 'initial'],
        ['final', 'trained'],
      ] as const) {
        const values = await file.translated(prefix, reference.parameters, 'value', reference, translate);
        const adapters = Object.fromEntries(
          Object.entries(await adaptersOf(reference, path)).map(([name, { record, digest }]) => {
            const tensors = allParams(record).map(({ key, shape, dtype }): [string, Tensor] => [
              key,
              tensorOf(dtype, shape, values.get(`${name}.${key}`) as readonly number[]),
            ]);
            return [name, { record, digest, tensors: new Map(tensors) }];
          }),
        );
        const { model, input } = await combine({ model: path, adapters, by: 'row' });
        const logits = await file.numbers(`logits.${state}`);
        const found = numbers((await runModel(model, { ...inputs, [input]: choiceOf(reference) })).logits);
        expect(found).toHaveLength(logits.length);
        expect(difference(logits, found)).toBeLessThan(1e-5);
      }
    },
  );
});
