/** Presets on exported models, and compositions that ask for what cannot be. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { attachAdapter } from '../../passes/insert/insert.js';
import { settingsOf } from '../../passes/methods/contract/configurable.js';
import { definePreset, type Preset } from '../../passes/presets/preset.js';
import { PRESETS } from '../../passes/presets/registry.js';
import { emitStep } from '../../passes/targets/step.js';
import { modelTensors } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { attach } from '../../runtime/library/attach.js';
import { insert } from '../../runtime/library/insert.js';
import { verify } from '../../runtime/verify.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { modelFixture } from '../helpers/fixtures.js';
import { floats, Sketch } from '../sites/graphs.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'presets-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const FIXTURES = ['bert.dynamo.dynamic', 'gpt2.ts.dynamic', 'llama.dynamo.dynamic'].map(modelFixture);

/** Sizes that fit small models, for whichever preset has them. */
const SMALL: Readonly<Record<string, unknown>> = {
  length: 2,
  size: 4,
  rank: 2,
  hidden: 8,
  projection: false,
};

function small(preset: Preset): Record<string, unknown> {
  const known = settingsOf(preset);
  return Object.fromEntries(Object.entries(SMALL).filter(([name]) => known.includes(name)));
}

describe.each(PRESETS.map((preset) => [preset.id, preset] as const))('%s', (id, preset) => {
  const parts = preset.entries(preset.config.parse({}));
  const methods = parts.map(({ method }) => (typeof method === 'string' ? method : method.id));

  it.each(FIXTURES.map((fixture) => [fixture.name, fixture] as const))('on %s', async (_name, fixture) => {
    const model = readModel(fixture.path);
    const { record } = await insert(model, { method: id, config: small(preset), run: { validate: 'edit' } });
    expect(record.entries.map(({ method }) => method)).toEqual(methods);
    for (const entry of record.entries.keys())
      expect(record.sites.filter((site) => site.entry === entry).length).toBeGreaterThanOrEqual(2);
    // It trains: every parameter is on the way to the loss.
    const { manifest } = emitStep(model, { loss: fixture.task });
    expect(manifest.params.length).toBeGreaterThan(0);

    const adapter = { record, tensors: randomParameters(record, model, { std: 0.1 }), digest: id };
    const unfolded = readModel(fixture.path);
    attachAdapter(unfolded, record, await modelTensors(adapter));
    const effect = await verify(fixture.path, unfolded);
    expect(effect.worst.relative).toBeGreaterThan(10 * effect.tolerance);

    const { impossible, tensors } = await fold({ model: fixture.path, adapter });
    expect(impossible.length + tensors.length).toBeGreaterThan(0);
    if (tensors.length === 0) return;
    const out = join(folder, `${id}.${fixture.name}.onnx`);
    const report = await fold({ model: fixture.path, adapter, out, keep: true, verify: true });
    expect(report.verification?.pass).toBe(true);
  });
});

describe('presets', () => {
  const own = definePreset({
    id: 'twice',
    summary: 'Two updates of one weight',
    paper: { title: 'none', arxiv: '0000.00000' },
    config: z.strictObject({ rank: z.int().min(1).default(2) }),
    entries: ({ rank }) => [
      { method: 'lora', config: { rank }, targeting: { targets: ['query'] } },
      { method: 'lora', config: { rank: rank + 1 }, targeting: { targets: ['query'] } },
    ],
  });
  const bert = () => readModel(modelFixture('bert.ts.dynamic').path);

  it('of one’s own, left out of layers and modules', async () => {
    const { record } = await insert(bert(), {
      method: 'twice',
      config: { rank: 3 },
      targeting: { layers: [1] },
      presets: [own],
    });
    expect(record.sites.map(({ path, config }) => [path, config.rank])).toEqual([
      ['bert.encoder.layer.1.attention.self.query', 3],
      ['bert.encoder.layer.1.attention.self.query', 4],
    ]);
  });

  it.each([
    [{ entries: [] }, 'E_USAGE', 'lora'],
    [{ method: 'unipet' }, 'E_NO_MATCH', "'unipelt'"],
    [{ method: 'mam', config: { lenght: 3 } }, 'E_USAGE', "'length'"],
    [{ method: 'mam', targeting: { targets: ['query'] } }, 'E_USAGE', 'prefix, parallel'],
    [{ method: 'pafi', config: { ratio: 0 } }, 'E_USAGE', '0.005'],
    [{ method: 'lora', targeting: { targets: ['role:quary'] } }, 'E_NO_MATCH', 'role:query'],
  ])('%j: %s', async (options, code, says) => {
    await expect(insert(bert(), options)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(says),
    });
  });

  it('a method of which a later one would leave nothing is refused', async () => {
    const at = (method: string) => ({ method, targeting: { targets: ['query'] } });
    await expect(insert(bert(), { entries: [at('lora'), at('full')] })).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringContaining('Put lora behind it'),
    });
    // Each changes the weight that the other left, or something else.
    for (const entries of [
      [at('full'), at('lora')],
      [at('lora'), at('bitfit')],
      [at('ia3'), at('bitfit')],
    ])
      expect((await insert(bert(), { entries })).record.entries).toHaveLength(2);
  });

  it('say what else to do on a model without attention', async () => {
    const mlp = (): Model => {
      const s = new Sketch();
      const y = s.node('MatMul', [s.input('x', [2, 4]), s.weight('up.weight', floats([4, 4]))]);
      return s.output(y, [2, 4]).model;
    };
    for (const method of ['prefix', 'mam', 'unipelt', 'houlsby'])
      await expect(insert(mlp(), { method }), method).rejects.toMatchObject({
        exitCode: expect.toSatisfy((status: number) => status === 4 || status === 7),
        remedy: expect.stringMatching(/lora|inspect|Name the modules/),
      });
  });

  it('an adapter of which nothing folds is served beside its base', async () => {
    const model = bert();
    const { record } = await insert(model, { method: 'houlsby', config: { size: 2 } });
    const adapter = { record, tensors: randomParameters(record), digest: 'x' };
    await expect(fold({ model: bert(), adapter, out: join(folder, 'x.onnx') })).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringContaining('emit --target adapted'),
      remedy: expect.stringContaining('--adapter'),
    });
    const served = bert();
    await attach(served, adapter);
    const same = bert();
    attachAdapter(same, record, adapter.tensors);
    expect((await verify(same, served)).pass).toBe(true);
    expect((await verify(bert(), served)).pass).toBe(false);
    await expect(attach(served, adapter)).rejects.toMatchObject({ code: 'E_UNSUPPORTED' });
    const other = { ...adapter, record: { ...record, base: 'sha256:0' } };
    await expect(attach(bert(), other)).rejects.toMatchObject({ code: 'E_INVALID_DATA' });
  });

  it('a gated module whose input has no axis for tokens is left out, with the reason', async () => {
    const gated = { method: 'lora', config: { gating: true } };
    const { record, skipped } = await insert(bert(), gated);
    expect(skipped).toEqual([
      { path: 'bert.pooler.dense', method: 'lora', reason: expect.stringContaining('leave gating off') },
    ]);
    expect(record.sites.length).toBeGreaterThan(2);
    const targeting = { targets: ['pooler.dense'] };
    await expect(insert(bert(), { ...gated, targeting })).rejects.toMatchObject({ code: 'E_UNSUPPORTED' });
    expect((await insert(bert(), { method: 'lora', targeting })).skipped).toEqual([]);
  });

  it('positions that an export lost are reported, unless they are kept', async () => {
    const lost = () => readModel(modelFixture('bert.dynamo.static').path);
    const { skipped } = await insert(lost(), { method: 'prefix' });
    expect(skipped).toEqual([
      { path: 'positions', method: 'prefix', reason: expect.stringContaining('positions: keep') },
    ]);
    expect((await insert(lost(), { method: 'prefix', config: { positions: 'keep' } })).skipped).toEqual([]);
    expect((await insert(bert(), { method: 'prefix' })).skipped).toEqual([]);
  });

  it('methods that read weights are no second readers of them', async () => {
    for (const method of ['dora', 'lora-xs', 'pafi'])
      expect((await insert(bert(), { method, config: method === 'pafi' ? {} : { rank: 2 } })).shared).toEqual(
        (await insert(bert(), { method: 'lora' })).shared,
      );
  });
});
