/** Adapters mixed in one batch: every row computes what its adapter alone computes for it. */
import ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import type { AdapterRecord } from '../passes/adapter-record.js';
import type { InsertEntry } from '../passes/insert/entry.js';
import { attachAdapter } from '../passes/insert/insert.js';
import type { AdapterFile } from '../runtime/adapter-file.js';
import { numbersOf } from '../runtime/host-tensor.js';
import { combine } from '../runtime/library/combine.js';
import { insert } from '../runtime/library/insert.js';
import { inputSymbols, randomInputs } from '../runtime/random-inputs.js';
import { encodeNumbers } from '../src/literals.js';
import type { Model } from '../src/model.js';
import { readModel } from '../src/onnx/index.js';
import { type Tensor, tensorOfBytes } from '../src/tensor.js';
import { randomParameters } from './helpers/adapters.js';
import { modelFixture } from './helpers/fixtures.js';
import { type Feeds, numbers, runModel } from './helpers/run.js';
import { type Reference, references, TensorFile, transposed } from './methods/reference-support.js';

const bert = modelFixture('bert.dynamo.dynamic').path;
const gpt2 = modelFixture('gpt2.ts.dynamic').path;
const llama = modelFixture('llama.dynamo.dynamic').path;
const fixed = modelFixture('bert.ts.static').path;

async function adapter(path: string, seed: number, entries: readonly InsertEntry[], sameSeed = false) {
  const inserted = readModel(path);
  const { record } = await insert(inserted, { entries, seed: sameSeed ? 1 : seed });
  const stored = new Map([...inserted.graph.initializers].map((value) => [value.name, value.tensor]));
  const tensors = randomParameters(record, inserted, { seed });
  // Frozen tensors are what insertion made them.
  for (const { params } of record.sites)
    for (const { key, name, trainable } of Object.values(params)) {
      const tensor = stored.get(name);
      if (!trainable && tensor !== undefined) tensors.set(key, tensor);
    }
  const alone = readModel(path);
  attachAdapter(alone, record, tensors);
  const file: AdapterFile = { record, tensors, digest: `${seed}` };
  return { file, alone };
}

const lora = (rank: number, targets: string[], more: object = {}): InsertEntry => ({
  method: 'lora',
  config: { rank, alpha: 5, ...more },
  targeting: { targets },
});

const int64 = (values: readonly number[], dims: readonly number[]) =>
  new ort.Tensor('int64', BigInt64Array.from(values, BigInt), [...dims]);

function feedsOf(model: Model): { feeds: Feeds; batch: number } {
  const sizes = Object.fromEntries([...inputSymbols(model)].map((symbol, i) => [symbol, i === 0 ? 4 : 5]));
  const inputs = randomInputs(model, { seed: 3, sizes, padded: true });
  const feeds = Object.fromEntries(
    Object.entries(inputs).map(([name, tensor]) => [
      name,
      int64(Array.from(numbersOf(tensor) as ArrayLike<number>), tensor.dims),
    ]),
  );
  return { feeds, batch: Object.values(inputs)[0]?.dims[0] ?? 0 };
}

async function rowsOf(model: Model, feeds: Feeds, batch: number): Promise<number[][]> {
  const all = numbers(Object.values(await runModel(model, feeds))[0]);
  const size = all.length / batch;
  return Array.from({ length: batch }, (_, row) => all.slice(row * size, (row + 1) * size));
}

function difference(a: readonly number[], b: readonly number[]): number {
  const scale = Math.max(...a.map(Math.abs));
  return Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? Number.NaN)))) / scale;
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
          ...(await adapter(base, i + 1, entries, sameSeed)),
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
      const { feeds, batch } = feedsOf(original);
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
    const a = (await adapter(base, 1, entries)).file;
    const b = (await adapter(base, 2, other)).file;
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

/** An adapter's tensors of a recorded run: peft has [rank, in] and [out, rank]. */
async function recorded(
  file: TensorFile,
  prefix: string,
  adapterName: string,
  record: AdapterRecord,
): Promise<Map<string, Tensor>> {
  const tensors = new Map<string, Tensor>();
  for (const { path, params } of record.sites)
    for (const { key, shape, dtype } of Object.values(params)) {
      const name = `${prefix}.${path}.${key.slice(path.length + 1)}.${adapterName}.weight`;
      const data = transposed(await file.numbers(name), [...shape].reverse());
      tensors.set(key, tensorOfBytes(dtype, shape, encodeNumbers(dtype, Float64Array.from(data))));
    }
  return tensors;
}

describe('recorded by peft', () => {
  interface ByRow extends Reference {
    readonly config: {
      readonly adapters: Readonly<
        Record<string, { readonly rank: number; readonly alpha: number; readonly targets: readonly string[] }>
      >;
      readonly rows: readonly string[];
    };
  }
  const reference = references().find(({ name }) => name === 'bert-lora-by-row') as ByRow;

  it.each(['bert.ts.dynamic', 'bert.dynamo.dynamic'])(
    'logits on %s, before and after training',
    async (fixture) => {
      const { path } = modelFixture(fixture);
      const file = new TensorFile(reference.name);
      const batches = new TensorFile(reference.batches);
      const { adapters, rows } = reference.config;
      for (const [prefix, state] of [
        ['init', 'initial'],
        ['final', 'trained'],
      ] as const) {
        const files: Record<string, AdapterFile> = {};
        for (const [name, { rank, alpha, targets }] of Object.entries(adapters)) {
          const inserted = readModel(path);
          const entries = [{ method: 'lora', config: { rank, alpha }, targeting: { targets: [...targets] } }];
          const { record } = await insert(inserted, { entries });
          files[name] = { record, digest: name, tensors: await recorded(file, prefix, name, record) };
        }
        const { model, names, input } = await combine({ model: path, adapters: files, by: 'row' });
        const inputs = await batches.batch(
          0,
          readModel(path).graph.inputs.map(({ name }) => name ?? ''),
        );
        const index = rows.map((name) => (name === '__base__' ? 0 : names.indexOf(name)));
        expect(index).not.toContain(-1);
        const logits = await file.numbers(`logits.${state}`);
        const found = numbers(
          (await runModel(model, { ...inputs, [input]: int64(index, [index.length]) })).logits,
        );
        expect(found).toHaveLength(logits.length);
        expect(difference(logits, found)).toBeLessThan(1e-5);
      }
    },
  );
});
