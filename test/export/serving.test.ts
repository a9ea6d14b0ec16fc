/** Serving graphs: one graph, adapters of any rank as inputs, and none. */
import { linkSync, mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import ort from 'onnxruntime-node';
import { afterAll, describe, expect, it } from 'vitest';
import type { InsertEntry } from '../../passes/insert/entry.js';
import { attachAdapter } from '../../passes/insert/insert.js';
import { METHODS } from '../../passes/methods/registry.js';
import { DIALECTS } from '../../passes/targets/dialects.js';
import type { ScalePlace } from '../../passes/targets/serving.js';
import { type AdapterFile, writeAdapter } from '../../runtime/adapter-file.js';
import { readOnnxAdapter } from '../../runtime/export/onnx-adapter/read.js';
import { servingTensors } from '../../runtime/export/serving-tensors.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { emit } from '../../runtime/library/emit.js';
import { insert } from '../../runtime/library/insert.js';
import { serve } from '../../runtime/library/serving.js';
import { inputSymbols, randomInputs } from '../../runtime/random-inputs.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import { cli, cliJson, temporaryFolder } from '../cli/support.js';
import { randomParameters } from '../helpers/adapters.js';
import { fixturePath, modelFixture } from '../helpers/fixtures.js';
import { type Feeds, numbers, runModel } from '../helpers/run.js';
import { everywhere, testSettings } from '../methods/battery.js';

const folder = temporaryFolder();
afterAll(() => folder.remove());

const bert = modelFixture('bert.dynamo.dynamic').path;
const llama = modelFixture('llama.dynamo.dynamic').path;

/** An adapter with random parameters, and the base with it alone. */
async function adapterOf(path: string, seed: number, entries: readonly InsertEntry[]) {
  const inserted = readModel(path);
  const { record } = await insert(inserted, { entries, seed });
  const tensors = randomParameters(record, inserted, { seed });
  const alone = readModel(path);
  attachAdapter(alone, record, tensors);
  const file: AdapterFile = { record, tensors, digest: `${seed}` };
  return { file, alone, inserted };
}

const lora = (rank: number, alpha: number, targets: string[], more: object = {}): InsertEntry => ({
  method: 'lora',
  config: { rank, alpha, ...more },
  targeting: { targets },
});

function feedsOf(model: Model): Feeds {
  const sizes = Object.fromEntries([...inputSymbols(model)].map((symbol, i) => [symbol, i === 0 ? 2 : 5]));
  return Object.fromEntries(
    Object.entries(randomInputs(model, { seed: 3, sizes, padded: true })).map(([name, tensor]) => [
      name,
      new ort.Tensor('int64', BigInt64Array.from(numbersOf(tensor) as ArrayLike<number>, BigInt), [
        ...tensor.dims,
      ]),
    ]),
  );
}

/** Tensors as feeds: what a host without active adapters does. */
async function fed(tensors: ReadonlyMap<string, Tensor>): Promise<Feeds> {
  const feeds: Record<string, ort.Tensor> = {};
  for (const [name, tensor] of tensors) {
    const { dtype, dims, data } = await loadTensor(tensor);
    const bytes = data.slice();
    feeds[name] =
      dtype === 'float16'
        ? new ort.Tensor('float16', new Uint16Array(bytes.buffer), [...dims])
        : new ort.Tensor('float32', new Float32Array(bytes.buffer), [...dims]);
  }
  return feeds;
}

async function output(
  model: Model,
  feeds: Feeds,
  options: ort.InferenceSession.SessionOptions = {},
): Promise<number[]> {
  return numbers(Object.values(await runModel(model, feeds, options))[0]);
}

function difference(a: readonly number[], b: readonly number[]): number {
  const scale = Math.max(...a.map(Math.abs));
  return Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? Number.NaN)))) / scale;
}

describe('one graph for adapters of every rank', { timeout: 60_000 }, () => {
  const targets = ['query', 'dense'];

  it.each(['factor', 'input'] as const)('with the scale as %s', async (scale: ScalePlace) => {
    const made = [
      await adapterOf(bert, 1, [lora(3, 5, targets)]),
      await adapterOf(bert, 2, [lora(8, 2, targets, { rslora: true })]),
      // Another rank at one module.
      await adapterOf(bert, 4, [
        { ...lora(4, 6, targets), targeting: { targets, rankPattern: { query: 1 } } },
      ]),
    ];
    const { file } = made[0] as (typeof made)[number];
    const { model, none, inputs } = await serve({ model: bert, adapter: file, scale });
    const shapes = inputs.filter(({ kind }) => kind === 'parameter').map(({ shape }) => shape);
    expect(shapes.slice(0, 4)).toEqual([
      [32, 'lora_r'],
      ['lora_r', 32],
      [32, 'lora_r_2'],
      ['lora_r_2', 32],
    ]);
    const feeds = feedsOf(readModel(bert));
    const base = await output(readModel(bert), feeds);
    for (const { file: adapter, alone } of made) {
      const served = await output(model, {
        ...feeds,
        ...(await fed(await servingTensors(adapter, { scale }))),
      });
      expect(difference(await output(alone, feeds), served)).toBeLessThan(2e-6);
      expect(difference(base, served)).toBeGreaterThan(1e-3);
    }
    if (typeof none === 'string') throw new Error(none);
    expect([...none.keys()]).toEqual(inputs.map(({ name }) => name));
    const nothing = { ...feeds, ...(await fed(none)) };
    expect(difference(base, await output(model, nothing))).toBeLessThan(1e-6);
    // Bit for bit where the runtime fuses nothing that the branches stand between.
    const plain = { graphOptimizationLevel: 'disabled' } as const;
    expect(await output(model, nothing, plain)).toEqual(await output(readModel(bert), feeds, plain));
  });

  it('is made of an inserted model as well', async () => {
    const { inserted } = await adapterOf(bert, 1, [lora(3, 5, targets)]);
    const other = await adapterOf(bert, 2, [lora(2, 7, targets)]);
    const model = await emit(inserted, { target: 'adapted', adapterIo: 'inputs' });
    const feeds = feedsOf(readModel(bert));
    const served = await output(model, { ...feeds, ...(await fed(await servingTensors(other.file))) });
    expect(difference(await output(other.alone, feeds), served)).toBeLessThan(2e-6);
  });

  it('takes float16 files where the model is float32', async () => {
    const { file, alone } = await adapterOf(bert, 1, [lora(3, 5, targets)]);
    const { model } = await serve({ model: bert, adapter: file, dtype: 'float16' });
    const tensors = await servingTensors(file, { dtype: 'float16' });
    expect([...tensors.values()].every(({ dtype }) => dtype === 'float16')).toBe(true);
    const feeds = feedsOf(readModel(bert));
    const served = await output(model, { ...feeds, ...(await fed(tensors)) });
    const error = difference(await output(alone, feeds), served);
    // Rounding of the factors to 11 bits.
    expect(error).toBeLessThan(5e-3);
    expect(error).toBeGreaterThan(0);
  });
});

describe('no adapter', { timeout: 60_000 }, () => {
  it.each(METHODS.map((method) => [method.id, method] as const))('%s', async (_, method) => {
    const entry = everywhere(readModel(bert), method);
    if (entry === undefined) return;
    const entries = [{ ...entry, config: testSettings(method) }];
    const { file } = await adapterOf(bert, 1, entries);
    const { model, none } = await serve({ model: bert, adapter: file });
    if (!method.startsAsBase) {
      expect(none).toContain(method.id);
      return;
    }
    if (typeof none === 'string') throw new Error(none);
    const feeds = feedsOf(readModel(bert));
    const base = await output(readModel(bert), feeds);
    expect(difference(base, await output(model, { ...feeds, ...(await fed(none)) }))).toBeLessThan(1e-5);
    const own = await servingTensors(file);
    expect([...own.keys()]).toEqual([...none.keys()]);
    expect(difference(base, await output(model, { ...feeds, ...(await fed(own)) }))).toBeGreaterThan(1e-4);
  });

  it('is that of bottlenecks which do not start at zero', async () => {
    const entries = [{ method: 'houlsby', config: { size: 4, init: 'bert' } }];
    const { file } = await adapterOf(bert, 1, entries);
    const { model, none } = await serve({ model: bert, adapter: file });
    if (typeof none === 'string') throw new Error(none);
    const feeds = feedsOf(readModel(bert));
    const base = await output(readModel(bert), feeds);
    expect(difference(base, await output(model, { ...feeds, ...(await fed(none)) }))).toBeLessThan(1e-6);
  });
});

describe('defaults', () => {
  it('are the values of no adapter', async () => {
    const { file } = await adapterOf(bert, 1, [lora(3, 5, ['query'])]);
    const { model, inputs } = await serve({ model: bert, adapter: file, optional: true });
    const feeds = feedsOf(readModel(bert));
    // Node lists no input that has a default, and gives the base.
    const base = await output(readModel(bert), feeds);
    expect(difference(base, await output(model, feeds))).toBeLessThan(1e-6);
    expect(model.graph.inputs.slice(-inputs.length).map(({ tensor }) => tensor?.dims)).toEqual(
      inputs.map(({ shape }) => shape.map((dim) => (typeof dim === 'number' ? dim : 0))),
    );
    const prompt = (await adapterOf(bert, 1, [{ method: 'prefix', config: { length: 2 } }])).file;
    await expect(serve({ model: bert, adapter: prompt, optional: true })).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
    });
  });
});

describe('names of other tools', () => {
  it('are those of Olive and of ORT GenAI', async () => {
    const { file } = await adapterOf(llama, 1, [lora(2, 3, ['q_proj', 'up_proj'])]);
    const first = async (names: string) => [...(await servingTensors(file, { names })).keys()].slice(0, 3);
    expect(await first('own')).toEqual([
      'model.layers.0.self_attn.q_proj.lora_A',
      'model.layers.0.self_attn.q_proj.lora_B',
      'model.layers.0.mlp.up_proj.lora_A',
    ]);
    expect(await first('olive')).toEqual([
      'model.layers.0.self_attn.q_proj.lora_A.weight',
      'model.layers.0.self_attn.q_proj.lora_B.weight',
      'model.layers.0.mlp.up_proj.lora_A.weight',
    ]);
    expect(await first('olive-attn')).toEqual([
      'model.layers.0.attn.q_proj.lora_A.weight',
      'model.layers.0.attn.q_proj.lora_B.weight',
      'model.layers.0.mlp.up_proj.lora_A.weight',
    ]);
    expect(await first('genai')).toEqual([
      'model.layers.0.attn.q_proj.lora_A.MatMul.weight',
      'model.layers.0.attn.q_proj.lora_B.MatMul.weight',
      'model.layers.0.mlp.up_proj.lora_A.MatMul.weight',
    ]);
    for (const { id } of DIALECTS) {
      const tensors = await servingTensors(file, { names: id });
      const { model, inputs } = await serve({ model: llama, adapter: file, names: id });
      expect(inputs.map(({ name }) => name)).toEqual([...tensors.keys()]);
      expect(model.graph.inputs.slice(-inputs.length).map(({ name }) => name)).toEqual([...tensors.keys()]);
    }
  });

  it('hold the scale in B', async () => {
    const { file } = await adapterOf(llama, 1, [lora(2, 3, ['q_proj'])]);
    const raw = numbersOf(await loadTensor(file.tensors.get('model.layers.1.self_attn.q_proj.lora_B')!));
    const tensor = (await servingTensors(file, { names: 'olive' })).get(
      'model.layers.1.self_attn.q_proj.lora_B.weight',
    )!;
    expect(tensor.dims).toEqual([2, 32]);
    expect(Array.from(numbersOf(await loadTensor(tensor)))).toEqual(
      Array.from(raw, (value) => Math.fround(value * 1.5)),
    );
  });

  it('of a packed projection are those of its parts', async () => {
    const phi3 = fixturePath('zoo', 'phi3.dynamo.dynamic.onnx');
    const packed = 'model.layers.0.self_attn.qkv_proj';
    const { file } = await adapterOf(phi3, 1, [lora(2, 3, ['qkv_proj', 'gate_up_proj'])]);
    const whole = await servingTensors(file, { names: 'olive' });
    const numbersAt = async (tensors: ReadonlyMap<string, Tensor>, name: string) =>
      Array.from(numbersOf(await loadTensor(tensors.get(name)!)));
    const parts = await servingTensors(file, { names: 'genai', model: readModel(phi3) });
    const B = await numbersAt(whole, `${packed}.lora_B.weight`);
    const joined: number[][] = [[], []];
    for (const part of ['q_proj', 'k_proj', 'v_proj']) {
      const path = `model.layers.0.attn.${part}`;
      expect(await numbersAt(parts, `${path}.lora_A.MatMul.weight`)).toEqual(
        await numbersAt(whole, `${packed}.lora_A.weight`),
      );
      const own = await numbersAt(parts, `${path}.lora_B.MatMul.weight`);
      for (const [row, all] of joined.entries())
        all.push(...own.slice((row * own.length) / 2, ((row + 1) * own.length) / 2));
    }
    expect(joined.flat()).toEqual(B);
    expect([...parts.keys()]).toContain('model.layers.0.mlp.gate_proj.lora_A.MatMul.weight');
    await expect(servingTensors(file, { names: 'genai' })).rejects.toMatchObject({ code: 'E_UNSUPPORTED' });
    await expect(serve({ model: phi3, adapter: file, names: 'genai' })).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
    });
  });

  it('are refused for what those tools do not have', async () => {
    const { file } = await adapterOf(bert, 1, [{ method: 'houlsby', config: { size: 4 } }]);
    await expect(servingTensors(file, { names: 'olive' })).rejects.toMatchObject({ code: 'E_UNSUPPORTED' });
    await expect(serve({ model: bert, adapter: file, names: 'x' })).rejects.toMatchObject({
      code: 'E_USAGE',
    });
  });
});

describe('on the command line', { timeout: 60_000 }, () => {
  it('writes the graph, its adapters and the one for none', async () => {
    const { file, alone } = await adapterOf(bert, 1, [lora(3, 5, ['query'])]);
    const adapter = folder.path('adapter.safetensors');
    await writeAdapter(adapter, file.record, file.tensors);
    const [graph, none, own] = ['serving.onnx', 'none.onnx_adapter', 'own.onnx_adapter'].map((name) =>
      folder.path(name),
    ) as [string, string, string];
    const emitted = await cliJson(
      'emit',
      bert,
      '--target',
      'adapted',
      '--adapter',
      adapter,
      '--adapter-io',
      'inputs',
      '--names',
      'olive',
      '--none',
      none,
      '-o',
      graph,
    );
    expect(emitted).toMatchObject({ status: 0, json: { files: [graph, none] } });
    const exported = await cliJson(
      'export',
      adapter,
      '--format',
      'onnx_adapter',
      '--names',
      'olive',
      '--adapter-version',
      '4',
      '-o',
      own,
    );
    expect(exported).toMatchObject({ status: 0, json: { tensors: 4 } });
    const written = readOnnxAdapter(own);
    expect(written.adapterVersion).toBe(4);
    const feeds = feedsOf(readModel(bert));
    const model = readModel(graph);
    const nothing = await output(model, { ...feeds, ...(await fed(readOnnxAdapter(none).tensors)) });
    expect(difference(await output(readModel(bert), feeds), nothing)).toBeLessThan(1e-6);
    expect(
      difference(
        await output(alone, feeds),
        await output(model, { ...feeds, ...(await fed(written.tensors)) }),
      ),
    ).toBeLessThan(2e-6);
    const without = await cli('emit', bert, '--target', 'adapted', '--none', none, '-o', graph, '--force');
    expect(without).toMatchObject({ status: 2, stderr: expect.stringContaining('--adapter-io inputs') });
  });

  it("shares the base's external data", async () => {
    const external = modelFixture('bert.dynamo.external').path;
    const { file } = await adapterOf(external, 1, [lora(2, 3, ['query'])]);
    const adapter = folder.path('external.safetensors');
    await writeAdapter(adapter, file.record, file.tensors);
    // A base on the same file system, so that a link is possible.
    const base = folder.path('base', 'model.onnx');
    mkdirSync(dirname(base));
    const data = `${external.slice(external.lastIndexOf('/') + 1)}.data`;
    const { copyFileSync } = await import('node:fs');
    copyFileSync(external, base);
    copyFileSync(`${external}.data`, folder.path('base', data));
    linkSync(base, folder.path('base', 'same.onnx'));
    mkdirSync(folder.path('served'));
    const out = folder.path('served', 'serving.onnx');
    const { status } = await cli(
      'emit',
      base,
      '--target',
      'adapted',
      '--adapter',
      adapter,
      '--adapter-io',
      'inputs',
      '--weights',
      'link',
      '-o',
      out,
    );
    expect(status).toBe(0);
    expect(statSync(folder.path('served', data)).ino).toBe(statSync(folder.path('base', data)).ino);
  });
});
