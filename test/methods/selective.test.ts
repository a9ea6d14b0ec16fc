/** Methods that train or scale parts of the base: what they select, refuse and store. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import ort from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allParams, readAdapterRecord } from '../../passes/adapter-record.js';
import type { InsertEntry } from '../../passes/insert/entry.js';
import { savedModules } from '../../passes/insert/saved-modules.js';
import { placesOf, selectSmallest } from '../../passes/methods/parts/smallest.js';
import { emitStep } from '../../passes/targets/step.js';
import { readAdapter, writeAdapter } from '../../runtime/adapter-file.js';
import { artifactsInMemory } from '../../runtime/artifacts.js';
import { fold } from '../../runtime/fold/fold.js';
import { loadTensor, numbersOf, tensorOfNumbers } from '../../runtime/host-tensor.js';
import { datasetOf } from '../../runtime/library/dataset.js';
import { emit } from '../../runtime/library/emit.js';
import { insert } from '../../runtime/library/insert.js';
import { writeSafetensors } from '../../runtime/safetensors.js';
import { train } from '../../runtime/train/train.js';
import { cloneModel } from '../../src/clone.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { randomParameters } from '../helpers/adapters.js';
import { fixturePath } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import { floats, Sketch } from '../sites/graphs.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'selective-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const exported = (name: string) => readModel(fixturePath('models', `${name}.onnx`));

/** `y = (x A + a) B + b`: modules `up` [3, 4] and `down` [4, 2]. */
function twoLinears({ upBias = floats([4], 3), downBias = floats([2], 4) } = {}): Model {
  const s = new Sketch();
  const x = s.input('x', [2, 3]);
  const up = s.node('Add', [
    s.node('MatMul', [x, s.weight('up.weight', floats([3, 4], 1))]),
    s.weight('up.bias', upBias),
  ]);
  const down = s.node('Gemm', [
    up,
    s.weight('down.weight', floats([4, 2], 2)),
    s.weight('down.bias', downBias),
  ]);
  return s.output(down, [2, 2]).model;
}

function stored(model: Model, name: string): number[] {
  const value = [...model.graph.initializers].find((initializer) => initializer.name === name);
  const { dtype, dims, data } = value!.tensor!;
  return Array.from(numbersOf({ dtype, dims, data: data.read(0, data.byteLength) }));
}

/** The numbers of an initializer or of a parameter by key. */
function setParam(model: Model, key: string, data: readonly number[]): void {
  const param = allParams(readAdapterRecord(model)).find((candidate) => candidate.key === key)!;
  const value = [...model.graph.initializers].find(({ name }) => name === param.name)!;
  value.tensor = tensorOfBytes(
    param.dtype,
    param.shape,
    tensorOfNumbers(param.dtype, param.shape, data).data,
  );
}

const zeros = (count: number): Tensor =>
  tensorOfBytes('float32', [count], new Uint8Array(new Float32Array(count).buffer));

describe('ia3', () => {
  test('scales outputs, and inputs of modules that feedforward names', async () => {
    const base = twoLinears();
    const model = twoLinears();
    await insert(model, {
      method: 'ia3',
      config: { feedforward: ['down'] },
      targeting: { targets: ['up', 'down'] },
    });
    const [l, m] = [
      [2, 3, 5, 7],
      [0.5, -1, 2, 4],
    ] as const;
    setParam(model, 'up.ia3_l', l);
    setParam(model, 'down.ia3_l', m);
    const x = Float32Array.from([1, -2, 0.5, 3, 1, -1]);
    const [output] = Object.values(await runModel(model, { x: new ort.Tensor('float32', x, [2, 3]) }));

    const [A, a, B, b] = ['up.weight', 'up.bias', 'down.weight', 'down.bias'].map((n) => stored(base, n)) as [
      number[],
      number[],
      number[],
      number[],
    ];
    const expected = [0, 1].flatMap((row) => {
      const hidden = [0, 1, 2, 3].map(
        (j) =>
          (a[j]! + [0, 1, 2].reduce((sum, i) => sum + x[row * 3 + i]! * A[i * 4 + j]!, 0)) * l[j]! * m[j]!,
      );
      return [0, 1].map((k) => b[k]! + hidden.reduce((sum, h, j) => sum + h * B[j * 2 + k]!, 0));
    });
    expect(numbers(output!)).toEqual(expected.map((value) => expect.closeTo(value, 4)));
  });

  test('refuses a feedforward name that means no module', async () => {
    const options = { method: 'ia3', targeting: { targets: ['up', 'down'] } };
    await expect(
      insert(twoLinears(), { ...options, config: { feedforward: ['dwn'] } }),
    ).rejects.toMatchObject({
      code: 'E_NO_MATCH',
      remedy: expect.stringContaining("'down'"),
    });
    await expect(insert(twoLinears(), { ...options, config: { feedforward: 'x.*' } })).rejects.toMatchObject({
      code: 'E_NO_MATCH',
    });
  });

  test("its default finds keys, values and down projections; of GPT-2's packed projection the parts", async () => {
    const model = exported('gpt2.dynamo.static');
    const { record } = await insert(model, { method: 'ia3' });
    const shapes = record.sites.map(({ path, params }) => [path, params.l?.shape]);
    expect(shapes).toHaveLength(6);
    expect(shapes).toContainEqual([expect.stringMatching(/h\.0\..*\.k$/), [32, 1]]);
    expect(shapes).toContainEqual([expect.stringMatching(/h\.0\..*\.v$/), [32, 1]]);
    expect(shapes).toContainEqual([expect.stringMatching(/h\.1\.mlp\.c_proj$/), [1, 48]]);

    const adapter = join(folder, 'ia3-parts.safetensors');
    await writeAdapter(adapter, record, randomParameters(record, model));
    const report = await fold({
      model: fixturePath('models', 'gpt2.dynamo.static.onnx'),
      adapter,
      out: join(folder, 'ia3-parts.onnx'),
      verify: true,
    });
    expect(report.proof?.holds).toBe(true);
    expect(report.verification?.pass).toBe(true);
  });
});

describe('bitfit', () => {
  test('trains every bias once and leaves out what has none', async () => {
    const model = exported('bert.ts.static');
    const { record, skipped } = await insert(model, { method: 'bitfit' });
    expect(Object.values(record.sites).every(({ params }) => Object.keys(params).join() === 'bias')).toBe(
      true,
    );
    const paths = record.sites.map(({ path }) => path);
    expect(paths).toContain('bert.embeddings.LayerNorm');
    expect(paths).toContain('bert.encoder.layer.1.attention.self.key');
    expect(new Set(paths).size).toBe(paths.length);
    expect(skipped).toEqual([]);
  });

  test('says why a model without biases is not for it', async () => {
    await expect(insert(exported('llama.ts.static'), { method: 'bitfit' })).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringContaining('no bias'),
    });
  });
});

test.each([
  ['bert.dynamo.static', ['classifier'], 32 * 3 + 3],
  ['roberta.ts.static', ['classifier.dense', 'classifier.out_proj'], 32 * 32 + 32 + 32 * 3 + 3],
])('a head is trained in full beside LoRA, and both fold: %s', async (name, heads, size) => {
  const path = fixturePath('models', `${name}.onnx`);
  const model = readModel(path);
  const saved = ['classifier'];
  const entries: InsertEntry[] = [
    {
      method: 'lora',
      config: { rank: 2 },
      targeting: { targets: ['query', 'value', heads.at(-1)!], modulesToSave: saved },
    },
    savedModules(saved),
  ];
  const { record, trainable } = await insert(model, { entries });
  expect(record.sites.filter(({ entry }) => entry === 1).map((site) => site.path)).toEqual(heads);
  expect(record.sites.filter(({ entry }) => entry === 0)).toHaveLength(4);
  expect(trainable).toBe(4 * (2 * 32 + 2 * 32) + size);

  const adapter = join(folder, `${name}-head.safetensors`);
  await writeAdapter(adapter, record, randomParameters(record, model));
  const report = await fold({ model: path, adapter, out: join(folder, `${name}-head.onnx`), verify: true });
  expect(report.verification?.pass).toBe(true);
  expect(report.tensors).toHaveLength(4 + 2 * heads.length);
});

describe('hiwi', () => {
  test('leaves out biases of zeros, which never train, and says so', async () => {
    const model = twoLinears({ upBias: zeros(4) });
    const { record, skipped } = await insert(model, {
      method: 'hiwi',
      targeting: { targets: ['up', 'down'] },
    });
    expect(record.sites.map(({ path }) => path)).toEqual(['down']);
    expect(skipped).toEqual([
      { path: 'up', method: 'hiwi', reason: expect.stringMatching(/bias is zero.*on: weight/) },
    ]);
    await expect(
      insert(twoLinears({ upBias: zeros(4) }), { method: 'hiwi', targeting: { targets: ['up'] } }),
    ).rejects.toMatchObject({ code: 'E_UNSUPPORTED', message: expect.stringContaining('on: weight') });
  });

  test('reads a zero bias no more when it acts on the weight', async () => {
    const model = twoLinears({ upBias: zeros(4) });
    const config = { on: 'weight', rank: 2 };
    const { record } = await insert(model, {
      method: 'hiwi',
      config,
      targeting: { targets: ['up', 'down'] },
    });
    expect(record.sites).toHaveLength(2);
  });

  test.each([1, 16])('stores the bias alone, whatever the rank: %i', async (rank) => {
    const base = fixturePath('models', 'bert.ts.static.onnx');
    const model = readModel(base);
    const { trainable } = await insert(model, { method: 'hiwi', config: { rank } });
    // up is [32, 48], down [48, 32], in two layers.
    expect(trainable).toBe(2 * 2 * rank * (48 + 32));
    const adapter = await trained(model, `hiwi-${rank}`);
    const { tensors } = await readAdapter(adapter);
    const count = [...tensors.values()].reduce((sum, { dims }) => sum + dims.reduce((a, b) => a * b, 1), 0);
    expect(count).toBe(2 * (48 + 32));
    const out = join(folder, `hiwi-${rank}.onnx`);
    const report = await fold({ model: base, adapter, out, verify: true });
    expect(report.verification?.pass).toBe(true);
    expect(report.tensors).toHaveLength(4);
  });
});

describe('the smallest weights', () => {
  async function* blocks(data: Float32Array, size: number): AsyncGenerator<Float32Array> {
    for (let at = 0; at < data.length; at += size) yield data.slice(at, at + size);
  }

  test('are those that a sort would take, ties in order', async () => {
    // Few values, so that many are equal, among them zeros of both signs, denormals and infinities.
    const value = fc.oneof(
      fc.float({ noNaN: true }),
      fc.constantFrom(0, -0, 1, -1, 0.5, -0.5, 2 ** -149, -(2 ** -149), 2 ** -126, 3.5, Infinity),
    );
    const tensor = fc.array(value, { minLength: 1, maxLength: 40 }).map((data) => Float32Array.from(data));
    await fc.assert(
      fc.asyncProperty(
        fc.array(tensor, { minLength: 1, maxLength: 5 }),
        fc.double({ min: 0.01, max: 1, noNaN: true }),
        async (tensors, ratio) => {
          const all = tensors.flatMap((data, t) => Array.from(data, (v, i) => ({ t, i, size: Math.abs(v) })));
          const wanted = Math.floor(ratio * all.length);
          const selections = await selectSmallest(
            tensors.map((data) => () => blocks(data, 7)),
            ratio,
          );
          expect(selections === undefined).toBe(wanted === 0);
          if (selections === undefined) return;
          const kept = [...all].sort((a, b) => a.size - b.size || a.t - b.t || a.i - b.i).slice(0, wanted);
          tensors.forEach((data, t) => {
            const expected = kept.filter((one) => one.t === t).map(({ i }) => i);
            const places = placesOf(Float64Array.from(data), selections[t]!);
            expect(Array.from(places, Number)).toEqual(expected.sort((a, b) => a - b));
          });
        },
      ),
      { numRuns: 150 },
    );
  });
});

describe('pafi', () => {
  const targets = ['up', 'down'];

  const inserted = async (config: Record<string, unknown>, model = twoLinears()) => {
    const report = await insert(model, { method: 'pafi', config, targeting: { targets } });
    return { model, ...report, places: (path: string) => stored(model, `${path}.pafi_indices`) };
  };

  test.each([
    [{ ratio: 0 }, /0 trains nothing.*leave the method out/],
    [{ ratio: 1.5 }, /above 1.*full/],
    [{ ratio: 0.5, mask: 'mask.safetensors' }, /exclude each other/],
  ])('refuses %j and names the alternative', async (config, message) => {
    await expect(inserted(config)).rejects.toMatchObject({
      code: 'E_USAGE',
      message: expect.stringMatching(message),
    });
  });

  test('says that a share is too small for the model', async () => {
    await expect(inserted({ ratio: 0.01 })).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringContaining('raise ratio'),
    });
  });

  test('one threshold for all tensors, or one for each; entries start at the base', async () => {
    const magnitudes = (['up', 'down'] as const).flatMap((path) =>
      stored(twoLinears(), `${path}.weight`).map((v, i) => ({ path, i, size: Math.abs(v) })),
    );
    const smallest = magnitudes.sort((a, b) => a.size - b.size).slice(0, 10);
    const of = (path: string) =>
      smallest
        .filter((one) => one.path === path)
        .map(({ i }) => i)
        .sort((a, b) => a - b);
    const all = await inserted({ ratio: 0.5 });
    expect(all.places('up')).toEqual(of('up'));
    expect(all.places('down')).toEqual(of('down'));
    expect(all.trainable).toBe(10);
    const weight = stored(all.model, 'up.weight');
    expect(stored(all.model, 'up.pafi_values')).toEqual(of('up').map((i) => weight[i]));

    const each = await inserted({ ratio: 0.5, scope: 'tensor' });
    expect(each.places('up')).toHaveLength(6);
    expect(each.places('down')).toHaveLength(4);
    const withBiases = await inserted({ ratio: 1, biases: true });
    expect(withBiases.trainable).toBe(12 + 8 + 4 + 2);
  });

  test('takes masks [in, out], places, and the file of another adapter', async () => {
    const mask = join(folder, 'mask.safetensors');
    const bits = new Uint8Array([0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1]);
    const tensors = new Map<string, Tensor>([
      ['up.weight', tensorOfBytes('bool', [3, 4], bits)],
      ['down', tensorOfBytes('int64', [2], tensorOfNumbers('int64', [2], [5, 2]).data)],
    ]);
    await writeSafetensors(mask, tensors, { force: true });
    const first = await inserted({ mask });
    expect(first.places('up')).toEqual([1, 8, 11]);
    expect(first.places('down')).toEqual([2, 5]);
    expect(stored(first.model, 'down.pafi_values')).toEqual(
      [2, 5].map((i) => stored(first.model, 'down.weight')[i]),
    );

    const adapter = join(folder, 'pafi-as-mask.safetensors');
    await writeAdapter(adapter, first.record, randomParameters(first.record, first.model));
    const second = await inserted({ mask: adapter });
    expect(second.places('up')).toEqual([1, 8, 11]);
    expect(second.places('down')).toEqual([2, 5]);

    const write = async (
      name: string,
      dtype: 'bool' | 'int64' | 'float32',
      dims: number[],
      data: number[],
    ) => {
      const file = join(folder, 'bad-mask.safetensors');
      const tensor = tensorOfBytes(dtype, dims, tensorOfNumbers(dtype, dims, data).data);
      await writeSafetensors(file, new Map([[name, tensor]]), { force: true });
      return inserted({ mask: file });
    };
    const bad = { code: 'E_INVALID_DATA' };
    await expect(write('up.weight', 'bool', [4, 3], [...bits])).rejects.toMatchObject({
      ...bad,
      message: expect.stringContaining('[4, 3]'),
    });
    await expect(write('up', 'int64', [2], [3, 3])).rejects.toMatchObject(bad);
    await expect(write('up', 'int64', [1], [12])).rejects.toMatchObject(bad);
    await expect(write('up', 'float32', [1], [1])).rejects.toMatchObject(bad);
    await expect(write('other', 'int64', [1], [1])).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringContaining('chooses none'),
    });
  });

  test('trains, stores, folds and serves places and entries alone', async () => {
    const base = fixturePath('models', 'bert.dynamo.dynamic.onnx');
    const model = readModel(base);
    const { record, trainable } = await insert(model, { method: 'pafi', config: { ratio: 0.1 } });
    const { manifest } = emitStep(model, { loss: 'classification' });
    const state = manifest.optimizer.state.reduce(
      (sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1),
      0,
    );
    expect(state).toBe(2 * trainable);
    const places = new Map(
      record.sites.map(({ path, params }) => [path, stored(model, params.indices?.name ?? '')]),
    );

    const inputs = (await emit(model, { target: 'adapted', adapterIo: 'inputs' })).graph.inputs;
    const keys = inputs.map(({ name }) => name ?? '');
    expect(keys.filter((name) => name.includes('pafi_values'))).toHaveLength(record.sites.length);
    expect(keys.filter((name) => name.includes('pafi_indices'))).toEqual([]);

    const adapter = await trained(model, 'pafi');
    const file = await readAdapter(adapter);
    for (const [path, expected] of places) {
      const tensor = await loadTensor(file.tensors.get(`${path}.pafi_indices`)!);
      expect(tensor.dtype).toBe('int64');
      expect(Array.from(numbersOf(tensor))).toEqual(expected);
    }
    const out = join(folder, 'pafi.onnx');
    const report = await fold({ model: base, adapter, out, verify: true });
    expect(report.proof?.holds).toBe(true);
    expect(report.verification?.pass).toBe(true);
    // No other number of the merged weights may be new.
    const [before, after] = [readModel(base), readModel(out)];
    let changed = 0;
    for (const value of before.graph.initializers) {
      const a = stored(before, value.name ?? '');
      const b = stored(after, value.name ?? '');
      a.forEach((v, i) => {
        if (!Object.is(v, b[i])) changed++;
      });
    }
    expect(changed).toBeGreaterThan(0.9 * trainable);
    expect(changed).toBeLessThanOrEqual(trainable);
  });
});

/** A few steps on random labels. */
async function trained(model: Model, name: string): Promise<string> {
  const artifacts = await artifactsInMemory(
    emitStep(cloneModel(model).model, {
      loss: 'classification',
      schedule: { id: 'constant', learningRate: 1e-2 },
    }),
    model,
  );
  const rows = Array.from({ length: 8 }, (_, i) => ({
    input_ids: Array.from({ length: 12 }, (_, j) => 5 + ((7 * i + 3 * j) % 40)),
    attention_mask: new Array(12).fill(1),
    token_type_ids: new Array(12).fill(0),
    labels: i % 3,
  }));
  const result = await train({
    artifacts,
    data: datasetOf(rows),
    out: join(folder, `${name}-run`),
    batchSize: 4,
    maxSteps: 4,
  });
  return result.adapter!;
}
