import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { type BatchInputSpec, Collator, checkDataset } from '../../runtime/data/batch.js';
import { type Dataset, epochOrder, splitDataset } from '../../runtime/data/dataset.js';
import { type LoadOptions, loadDataset } from '../../runtime/data/load.js';
import { loadTokenizer } from '../../runtime/data/tokenizer.js';
import { numbersOf, tensorOfNumbers } from '../../runtime/host-tensor.js';
import { writeSafetensors } from '../../runtime/safetensors.js';
import { Plan } from '../../runtime/train/plan.js';
import { refuses } from './refuses.js';
import { writeTokenizer } from './tokenizer.js';

const folder = mkdtempSync(join(tmpdir(), 'data-'));
afterAll(() => rmSync(folder, { recursive: true }));
const tokenizer = writeTokenizer(folder);
let files = 0;
function write(extension: string, content: string): string {
  const path = join(folder, `data-${files++}.${extension}`);
  writeFileSync(path, content);
  return path;
}
const jsonl = (...records: unknown[]) =>
  write('jsonl', records.map((r) => `${JSON.stringify(r)}\n`).join(''));

const input = (
  name: string,
  shape: (string | number)[],
  dtype: BatchInputSpec['dtype'] = 'int64',
): BatchInputSpec => ({
  name,
  dtype,
  shape,
  role: 'input',
});
const label = (shape: (string | number)[], padding?: number): BatchInputSpec => ({
  name: 'labels',
  dtype: 'int64',
  shape,
  role: 'label',
  padding,
});
const bert = [
  input('input_ids', ['batch', 'seq']),
  input('attention_mask', ['batch', 'seq']),
  input('token_type_ids', ['batch', 'seq']),
  label(['batch'], -100),
];
const lm = [
  input('input_ids', ['batch', 'seq']),
  input('attention_mask', ['batch', 'seq']),
  label(['batch', 'seq'], -100),
];

async function rowsOf(dataset: Dataset, specs: readonly BatchInputSpec[], options = {}) {
  const collator = new Collator(specs, options);
  const batch = collator.batch(Array.from({ length: dataset.length }, (_, i) => dataset.example(i)));
  const rows = Object.fromEntries(
    Object.entries(batch.feeds).map(([name, tensor]) => {
      const values = [...numbersOf(tensor)];
      const [height = 1, ...rest] = tensor.dims;
      const width = rest.reduce((p, d) => p * d, 1);
      return [
        name,
        tensor.dims.length < 2
          ? values
          : Array.from({ length: height }, (_, i) => values.slice(i * width, (i + 1) * width)),
      ];
    }),
  );
  return { rows, batch };
}

const load = (
  path: string,
  batch: readonly BatchInputSpec[],
  loss: string,
  rest: Partial<LoadOptions> = {},
) => loadDataset(path, { batch, loss, tokenizer, ...rest });

describe('texts', () => {
  it('frames, pads and labels classified sentences', async () => {
    const path = jsonl(
      { text: 'The cat sat on the mat', label: 'calm' },
      { text: 'the dog ran', label: 'wild' },
      { text: 'zebra', label: 'calm' },
    );
    const data = await load(path, bert, 'classification');
    expect(data.classes).toEqual(['calm', 'wild']);
    const { rows, batch } = await rowsOf(data, bert, { padId: loadTokenizer(tokenizer).padId });
    expect(rows).toEqual({
      input_ids: [
        [2, 4, 5, 6, 7, 4, 8, 3],
        [2, 4, 9, 10, 3, 0, 0, 0],
        [2, 1, 3, 0, 0, 0, 0, 0],
      ],
      attention_mask: [
        [1, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
      ],
      token_type_ids: [Array(8).fill(0), Array(8).fill(0), Array(8).fill(0)],
      labels: [0, 1, 0],
    });
    expect(batch.tokens).toBe(16);
  });

  it('marks the segments of pairs, and cuts the text, not the frame', async () => {
    const path = jsonl(
      { text: 'the cat', text_pair: 'the dog ran', label: 2 },
      { text: 'the cat sat on the mat', text_pair: 'the dog', label: 0 },
    );
    const { rows } = await rowsOf(await load(path, bert, 'classification', { maxLength: 8 }), bert);
    expect(rows.input_ids).toEqual([
      [2, 4, 5, 3, 4, 9, 10, 3],
      [2, 4, 5, 6, 7, 4, 8, 3],
    ]);
    expect(rows.token_type_ids).toEqual([
      [0, 0, 0, 0, 1, 1, 1, 1],
      [0, 0, 0, 0, 0, 0, 0, 1],
    ]);
    expect(rows.labels).toEqual([2, 0]);
  });

  it('labels language models with their own tokens, prompts left out', async () => {
    const plain = await load(jsonl({ text: 'the cat' }), lm, 'causal-lm');
    expect((await rowsOf(plain, lm)).rows.labels).toEqual([[2, 4, 5, 3]]);
    const prompts = await load(
      jsonl({ prompt: 'the cat', completion: 'sat' }, { prompt: 'the dog', completion: 'ran on' }),
      lm,
      'causal-lm',
    );
    const { rows } = await rowsOf(prompts, lm);
    expect(rows.input_ids).toEqual([
      [4, 5, 6, 11, 0],
      [4, 9, 10, 7, 11],
    ]);
    expect(rows.labels).toEqual([
      [-100, -100, 6, 11, -100],
      [-100, -100, 10, 7, 11],
    ]);
  });

  it('cuts a plain text into blocks without frames', async () => {
    const path = write('txt', 'the cat sat on the mat the dog ran\n');
    const data = await load(path, lm, 'causal-lm', { maxLength: 4 });
    const { rows } = await rowsOf(data, lm);
    expect(rows.input_ids).toEqual([
      [4, 5, 6, 7],
      [4, 8, 4, 9],
    ]);
    expect(rows.labels).toEqual(rows.input_ids);
    // A text shorter than one block is one short block.
    const short = await load(path, lm, 'causal-lm', { maxLength: 50 });
    expect((await rowsOf(short, lm, { length: 12 })).rows.labels).toEqual([
      [4, 5, 6, 7, 4, 8, 4, 9, 10, -100, -100, -100],
    ]);
  });

  it('says which record is wrong', async () => {
    const at = (record: unknown, batch = bert, loss = 'classification', rest = {}) =>
      load(jsonl({ text: 'the cat', label: 0 }, record), batch, loss, rest);
    await refuses(at({ text: 'the dog' }), 'E_INVALID_DATA', /no "label".*:2/);
    await refuses(at({ label: 1 }), 'E_INVALID_DATA', /"text" is missing.*:2/);
    await refuses(
      at({ text: 'a', label: 'x' }, bert, 'classification', { classes: ['y'] }),
      'E_INVALID_DATA',
      /"x" is none of/,
    );
    await refuses(load(write('txt', 'the cat'), bert, 'classification'), 'E_USAGE', /language models/);
    await refuses(
      loadDataset(jsonl({ text: 'a', label: 0 }), { batch: bert, loss: 'classification' }),
      'E_USAGE',
      /--tokenizer/,
    );
    await refuses(load(write('csv', 'a,b'), bert, 'classification'), 'E_USAGE', /\.jsonl/);
    await refuses(load(write('jsonl', '\n'), bert, 'classification'), 'E_INVALID_DATA', /no examples/);
    await refuses(() => loadTokenizer(write('json', '{"model":{"type":"Nonsense"}}')), 'E_INVALID_DATA');
    await refuses(() => loadTokenizer(join(folder, 'none.json')), 'E_IO');
  });
});

describe('tensors', () => {
  it('reads examples from the first axis of safetensors', async () => {
    const path = join(folder, 'tensors.safetensors');
    await writeSafetensors(
      path,
      new Map([
        ['input_ids', tensorOfNumbers('int64', [3, 2], [4, 5, 6, 7, 8, 9])],
        ['labels', tensorOfNumbers('int32', [3], [0, 1, 0])],
      ]),
    );
    const data = await load(path, bert, 'classification');
    const { rows } = await rowsOf(data, bert);
    expect(rows.input_ids).toEqual([
      [4, 5],
      [6, 7],
      [8, 9],
    ]);
    expect(rows.labels).toEqual([0, 1, 0]);
    await writeSafetensors(
      path,
      new Map([
        ['a', tensorOfNumbers('int64', [3, 2], [4, 5, 6, 7, 8, 9])],
        ['b', tensorOfNumbers('int64', [2], [4, 5])],
      ]),
      { force: true },
    );
    await refuses(
      load(path, bert, 'classification'),
      'E_INVALID_DATA',
      /'b' has 2 examples, 'a' has 3|'a' has 3 examples, 'b' has 2/,
    );
  });

  it('fills fixed shapes: sequences are padded, missing rows repeat with ignored labels', async () => {
    const specs = [
      input('input_ids', [3, 6]),
      input('position_ids', [1, 6]),
      input('cache_position', [6]),
      label([3, 6], -100),
    ];
    const path = jsonl({ input_ids: [4, 5, 6], labels: [4, 5, 6] }, { input_ids: [7], labels: [7] });
    const { rows, batch } = await rowsOf(await load(path, specs, 'causal-lm'), specs, { padId: 9 });
    expect(rows.input_ids).toEqual([
      [4, 5, 6, 9, 9, 9],
      [7, 9, 9, 9, 9, 9],
      [4, 5, 6, 9, 9, 9],
    ]);
    expect(rows.labels).toEqual([
      [4, 5, 6, -100, -100, -100],
      [7, -100, -100, -100, -100, -100],
      Array(6).fill(-100),
    ]);
    expect(batch.examples).toBe(2);
    expect(batch.feeds.position_ids!.dims).toEqual([1, 6]);
    expect(batch.feeds.cache_position!.dims).toEqual([6]);
    await refuses(
      async () =>
        rowsOf(
          await load(jsonl({ input_ids: Array(7).fill(4), labels: Array(7).fill(4) }), specs, 'causal-lm'),
          specs,
        ),
      'E_INVALID_DATA',
      /'input_ids' has shape \[7\].*takes \[6\]/,
    );
  });

  it('pads tensors of several axes in place', async () => {
    const specs = [input('grid', ['batch', 'h', 'w'], 'float32')];
    const path = jsonl(
      {
        grid: [
          [1, 2],
          [3, 4],
          [5, 6],
        ],
      },
      { grid: [[7, 8, 9]] },
    );
    const data = await load(path, specs, 'mse');
    const { rows } = await rowsOf(data, specs, { padding: { grid: 0.5 } });
    expect(rows.grid).toEqual([
      [1, 2, 0.5, 3, 4, 0.5, 5, 6, 0.5],
      [7, 8, 9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
    ]);
    // Without a padding value nothing is made up.
    await refuses(rowsOf(data, specs), 'E_INVALID_DATA', /no padding value/);
    await refuses(
      async () => rowsOf(await load(jsonl({ input_ids: [1.5], labels: 0 }), bert, 'classification'), bert),
      'E_INVALID_DATA',
      /holds 1\.5 at element 0; the model takes int64/,
    );
  });
});

describe('order', () => {
  it.each([
    [{ input_ids: [3, -1], labels: 1 }, /'input_ids' holds -1 at element 1.*from 0/],
    [{ input_ids: [3, 4], labels: -1 }, /'labels' holds -1.*-100/],
    [{ input_ids: [], labels: 1 }, /'input_ids' has no tokens/],
    [
      { input_ids: [3, 4, 5], attention_mask: [1], labels: 1 },
      /'attention_mask' has length 1, 'input_ids' has 3/,
    ],
    [{ input_ids: [3, 4], token_type_ids: [0, 0, 0], labels: 1 }, /'token_type_ids' has length 3/],
  ])('refuses what ONNX would take without a word: %j', async (record, message) => {
    const file = jsonl({ input_ids: [5], labels: 0 }, record);
    const data = await loadDataset(file, { batch: bert, loss: 'classification' });
    const fixed = bert.map((spec) => ({ ...spec, shape: spec.shape.map((d) => (d === 'seq' ? 8 : d)) }));
    for (const specs of [bert, fixed]) {
      await refuses(() => checkDataset(data, new Collator(specs)), 'E_INVALID_DATA', message);
      await refuses(() => checkDataset(data, new Collator(specs)), 'E_INVALID_DATA', /jsonl:2/);
    }
  });

  it('refuses data without a label that counts, keys that occur twice and arrays nested without end', async () => {
    const ignored = await loadDataset(jsonl({ input_ids: [3, 4], labels: [-100, -100] }), {
      batch: lm,
      loss: 'causal-lm',
    });
    await refuses(() => checkDataset(ignored, new Collator(lm)), 'E_INVALID_DATA', /nothing to learn/);
    const load = { batch: bert, loss: 'classification' };
    await refuses(
      loadDataset(write('jsonl', '{"input_ids": [3], "labels": 1, "labels": 0}'), load),
      'E_INVALID_DATA',
      /two entries 'labels'.*jsonl:1/,
    );
    const deep = `{"input_ids": ${'['.repeat(50_000)}${']'.repeat(50_000)}, "labels": 1}`;
    await refuses(loadDataset(write('jsonl', deep), load), 'E_INVALID_DATA', /has 50000 axes/);
  });

  it('refuses lengths that no text fits in', async () => {
    for (const maxLength of [0, 1, -3, 2.5, Number.NaN])
      await refuses(
        loadDataset(write('txt', 'the cat sat'), { batch: lm, loss: 'causal-lm', tokenizer, maxLength }),
        'E_USAGE',
        /at least 2/,
      );
  });

  it('shuffles by seed and epoch, and splits without losing an example', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 200 }), fc.nat(1000), fc.nat(5), (n, seed, epoch) => {
        const order = [...epochOrder(n, seed, epoch, true)];
        expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
        expect([...epochOrder(n, seed, epoch, true)]).toEqual(order);
        const data: Dataset = {
          source: 's',
          length: n,
          example: (i) => ({ where: String(i), tensors: new Map() }),
        };
        const { train, held } = splitDataset(data, 0.3, seed);
        const all = [train, held].flatMap((part) =>
          Array.from({ length: part.length }, (_, i) => Number(part.example(i).where)),
        );
        expect(all.sort((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
        expect(train.length).toBeGreaterThan(0);
        expect(held.length).toBeGreaterThan(0);
      }),
    );
    expect([...epochOrder(50, 1, 0, true)]).not.toEqual([...epochOrder(50, 1, 1, true)]);
    expect([...epochOrder(50, 1, 0, true)]).not.toEqual([...epochOrder(50, 2, 0, true)]);
  });

  it('plans every example once per epoch and counts forward passes without gaps', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 60 }),
        fc.integer({ min: 1, max: 7 }),
        fc.integer({ min: 1, max: 4 }),
        fc.boolean(),
        (examples, batchSize, accumulation, dropLast) => {
          fc.pre(!dropLast || examples >= batchSize);
          const plan = new Plan({ examples, batchSize, accumulation, dropLast, shuffle: true, seed: 7 });
          let passes = 0;
          for (let epoch = 0; epoch < 2; epoch++) {
            const seen: number[] = [];
            for (let i = 1; i <= plan.stepsPerEpoch; i++) {
              const step = plan.at(epoch * plan.stepsPerEpoch + i);
              expect(step.epoch).toBe(epoch);
              expect(step.forwardPasses).toBe(passes);
              passes += step.batches.length;
              seen.push(...step.batches.flat());
            }
            expect(new Set(seen).size).toBe(seen.length);
            expect(seen.length).toBe(dropLast ? Math.floor(examples / batchSize) * batchSize : examples);
          }
        },
      ),
    );
  });
});
