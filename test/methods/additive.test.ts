/** What additive methods start from, where they go, and what they say where they cannot. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attachAdapter } from '../../passes/insert/insert.js';
import { truncatedNormal } from '../../passes/methods/parts/initializers.js';
import { findSites } from '../../passes/sites/index.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { insert } from '../../runtime/library/insert.js';
import { verify } from '../../runtime/verify.js';
import { initialValues } from '../../src/initializer.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import { parseModel } from '../../src/text/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { difference, tokensFor } from '../helpers/combining.js';
import { modelFixture } from '../helpers/fixtures.js';
import { runModel, numbers as valuesOf } from '../helpers/run.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'additive-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const load = (name: string): Model => readModel(modelFixture(name).path);

async function numbers(tensor: Tensor | undefined): Promise<number[]> {
  if (tensor === undefined) throw new Error('no such tensor');
  return Array.from(numbersOf(await loadTensor(tensor)), Number);
}

describe('initial values', () => {
  it('truncated normal numbers stay within two deviations', () => {
    const values = [...initialValues(truncatedNormal(0.5), 4001, 1, 'x')];
    expect(Math.max(...values.map(Math.abs))).toBeLessThanOrEqual(1);
    expect(values.some((value) => Math.abs(value) > 0.9)).toBe(true);
    // The deviation of N(0, 1) cut at ±2 is 0.8796; of 4001 samples 1 percent off.
    const deviation = Math.hypot(...values) / Math.sqrt(values.length);
    expect(deviation / 0.5).toBeGreaterThan(0.85);
    expect(deviation / 0.5).toBeLessThan(0.91);
  });

  it.each([
    ['houlsby', { init: 'houlsby' }],
    ['pfeiffer', { init: 'bert' }],
    ['compacter', { size: 8, init: 'glorot' }],
  ])('%s starts near the base as its paper does, %j', async (method, config) => {
    const model = load('bert.dynamo.dynamic');
    await insert(model, { method, config });
    const { worst } = await verify(modelFixture('bert.dynamo.dynamic').path, model);
    expect(worst.relative).toBeGreaterThan(0);
    expect(worst.relative).toBeLessThan(0.05);
  });

  it('prompts start as rows of the vocabulary, or as the tokens of a text', async () => {
    const prompt = async (config: Record<string, unknown>) => {
      const model = load('gpt2.ts.dynamic');
      const { record } = await insert(model, { method: 'prompt', config });
      const { name } = record.sites[0]!.params.prompt!;
      const site = findSites(load('gpt2.ts.dynamic')).find(({ kind }) => kind === 'prompt');
      if (site?.kind !== 'prompt') throw new Error('no prompt');
      const table = await numbers(site.weight.value.tensor);
      const rows = Array.from({ length: site.vocab }, (_, i) =>
        table.slice(i * site.dim, (i + 1) * site.dim),
      );
      const values = await numbers(
        [...model.graph.initializers].find((value) => value.name === name)?.tensor,
      );
      const found = Array.from({ length: values.length / site.dim }, (_, i) =>
        rows.findIndex((row) => row.every((value, k) => value === values[i * site.dim + k])),
      );
      return found;
    };
    expect(await prompt({ length: 5, init: 'text', tokens: [7, 9, 4] })).toEqual([7, 9, 4, 7, 9]);
    expect(await prompt({ length: 2, init: 'text', tokens: [7, 9, 4] })).toEqual([7, 9]);
    const drawn = await prompt({ length: 6, init: 'vocabulary', vocabulary: 8 });
    expect(drawn.every((id) => id >= 0 && id < 8)).toBe(true);
    expect(new Set(drawn).size).toBe(6);
    expect(await prompt({ length: 6, init: 'vocabulary', vocabulary: 8 })).toEqual(drawn);
    await expect(prompt({ length: 2, init: 'text', tokens: [999] })).rejects.toMatchObject({
      code: 'E_USAGE',
      message: expect.stringContaining('vocabulary of 64'),
    });
    await expect(prompt({ init: 'text' })).rejects.toMatchObject({ code: 'E_USAGE' });
  });
});

describe('places', () => {
  it('positions come along with any attention, unless they are kept', async () => {
    const kinds = async (config: Record<string, unknown>, targets?: string[]) => {
      const { record } = await insert(load('llama.ts.dynamic'), {
        method: 'prefix',
        config,
        ...(targets === undefined ? {} : { targeting: { targets } }),
      });
      return record.sites.map(({ kind }) => kind).sort();
    };
    expect(await kinds({})).toEqual(['attention', 'attention', 'position']);
    expect(await kinds({}, ['model.layers.1.self_attn'])).toEqual(['attention', 'position']);
    expect(await kinds({ positions: 'keep' })).toEqual(['attention', 'attention']);
  });

  it('adapters stand at one kind of block or at both', async () => {
    const count = async (method: string, targets?: string) =>
      (
        await insert(load('gpt2.ts.dynamic'), {
          method,
          config: { size: 4 },
          ...(targets === undefined ? {} : { targeting: { targets } }),
        })
      ).record.sites.map(({ path }) => path);
    expect(await count('houlsby')).toEqual([
      'transformer.h.0.attn',
      'transformer.h.0.mlp',
      'transformer.h.1.attn',
      'transformer.h.1.mlp',
    ]);
    expect(await count('parallel')).toEqual(['transformer.h.0.mlp', 'transformer.h.1.mlp']);
    expect(await count('parallel', 'role:attention')).toEqual([
      'transformer.h.0.attn',
      'transformer.h.1.attn',
    ]);
  });

  it('every block of parallel adapters at attention shows in the output', async () => {
    const base = modelFixture('llama.dynamo.dynamic').path;
    const { record } = await insert(readModel(base), {
      method: 'parallel',
      config: { size: 4 },
      targeting: { targets: 'role:attention' },
    });
    const unfolded = readModel(base);
    attachAdapter(unfolded, record, randomParameters(record));
    expect((await verify(base, unfolded)).pass).toBe(false);
  });
});

describe('what cannot be', () => {
  it('a prefix may be longer than the sequence of a static export', async () => {
    const fixed = load('bert.dynamo.static');
    const entry = { method: 'prefix', config: { length: 40 } };
    const { record } = await insert(load('bert.dynamo.static'), entry);
    const tensors = randomParameters(record);
    const feeds = tokensFor(fixed, 1);
    const free = load('bert.dynamo.dynamic');
    for (const model of [fixed, free]) attachAdapter(model, record, tensors);
    const outputs = await Promise.all([fixed, free].map((model) => runModel(model, feeds)));
    const [a, b] = outputs.map((values) => valuesOf(Object.values(values)[0])) as [number[], number[]];
    expect(difference(a, b)).toBeLessThan(1e-5);
    const base = valuesOf(Object.values(await runModel(load('bert.dynamo.static'), feeds))[0]);
    expect(difference(a, base)).toBeGreaterThan(1e-2);
  });

  it('a prefix needs attention, which is taken apart where it is one operator', async () => {
    const { opened, record } = await insert(load('gpt2.dynamo.opset23'), { method: 'prefix' });
    expect(opened).toHaveLength(2);
    expect(record.sites.filter(({ kind }) => kind === 'attention')).toHaveLength(2);
    const none = parseModel(`<ir_version: 8, opset_import: ["": 17]>
product (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }`);
    await expect(insert(none, { method: 'prefix' })).rejects.toMatchObject({
      code: 'E_NO_MATCH',
      message: expect.stringContaining('prefix adapts attention sites, and the model has none'),
      remedy: expect.stringMatching(/eager.*lora/),
    });
  });

  it.each(['prompt', 'p-tuning'])('%s needs a sequence that can grow', async (method) => {
    await expect(insert(load('bert.ts.static'), { method })).rejects.toMatchObject({
      code: 'E_NO_MATCH',
      message: expect.stringContaining('the model has none'),
      remedy: expect.stringMatching(/symbolic sequence axis.*prefix/),
    });
  });

  it('terms of Compacter have to divide both widths', async () => {
    await expect(
      insert(load('bert.ts.dynamic'), { method: 'compacter', config: { size: 6, divisor: 4 } }),
    ).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringContaining('4 terms have to divide the width 32 and the bottleneck 6'),
    });
  });

  it('a gate needs examples apart', async () => {
    // A Gemm of this export reads all tokens of the batch as rows.
    await expect(
      insert(load('gpt2.ts.dynamic'), {
        method: 'lora',
        config: { gating: true },
        targeting: { targets: ['c_attn'] },
      }),
    ).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringMatching(/tokens of an example.*dynamo=True/),
    });
  });

  it.each([
    ['houlsby', 'bert.ts.dynamic', undefined, /activation.*emit --target adapted.*lora/],
    ['prefix', 'bert.ts.dynamic', undefined, /keys and values.*emit --target adapted.*lora/],
    ['prompt', 'bert.ts.dynamic', undefined, /virtual tokens.*emit --target adapted.*lora/],
    ['lora', 'bert.dynamo.dynamic', ['query'], /gate depends on the input/],
  ] as const)('folding %s on %s names the alternative', async (method, fixture, targets, reason) => {
    const base = modelFixture(fixture).path;
    const { record } = await insert(readModel(base), {
      method,
      ...(targets === undefined ? {} : { config: { gating: true }, targeting: { targets: [...targets] } }),
    });
    const adapter = join(folder, `${method}.safetensors`);
    await writeAdapter(adapter, record, randomParameters(record));
    await expect(fold({ model: base, adapter, out: join(folder, `${method}.onnx`) })).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringMatching(reason),
    });
  });
});
