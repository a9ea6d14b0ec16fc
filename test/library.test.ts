/** Functions of the library that join passes and runtime: what they add to the parts, which are tested on their own. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  datasetOf,
  digestWeights,
  emit,
  fold,
  insert,
  inspect,
  load,
  loadArtifacts,
  readAdapter,
  readAdapterRecord,
  save,
  tensorOf,
  train,
  verify,
} from 'peft-compile';
import { afterAll, describe, expect, it } from 'vitest';
import { modelFixture } from './helpers/fixtures.js';

const folder = mkdtempSync(join(tmpdir(), 'library-'));
afterAll(() => rmSync(folder, { recursive: true }));

const base = modelFixture('bert.ts.dynamic').path;
const data = datasetOf(
  Array.from({ length: 8 }, (_, i) => ({ input_ids: [5 + i, 6, 7, 8], labels: i % 3 })),
  'eight rows',
);

async function adapted() {
  const model = load(base);
  await insert(model, { method: 'lora', config: { rank: 2, alpha: 6 }, targeting: { targets: ['query'] } });
  return model;
}

describe('insert', () => {
  it('records the digest of the weights it was inserted into', async () => {
    const digest = await digestWeights(load(base));
    expect(readAdapterRecord(await adapted()).base).toBe(digest);
  });
});

describe('emit', () => {
  const options = { target: 'step', loss: 'classification' } as const;

  it('writes the same graphs that it gives in memory, and train takes either', async () => {
    const model = await adapted();
    const out = join(folder, 'graphs');
    const written = await emit(model, { ...options, out });
    const kept = await emit(model, options);
    expect(written.manifest).toEqual(kept.manifest);
    expect(readdirSync(out)).toContain('manifest.json');
    expect(written.graphs.step).toBe(join(out, 'step.onnx'));
    const run = (artifacts: Parameters<typeof train>[0]['artifacts'], name: string) =>
      train({ artifacts, data, batchSize: 4, epochs: 2, out: join(folder, name), session: { threads: 1 } });
    const losses = await Promise.all([run(out, 'a'), run(await loadArtifacts(out), 'b'), run(kept, 'c')]);
    expect(losses[0]?.losses).toHaveLength(4);
    expect(losses[1]?.losses).toEqual(losses[0]?.losses);
    expect(losses[2]?.losses).toEqual(losses[0]?.losses);
    await expect(emit(model, { ...options, out })).rejects.toMatchObject({ code: 'E_EXISTS' });
    await expect(emit(model, { ...options, out, force: true })).resolves.toBeDefined();
  });

  it('writes the adapted graph, which computes what the inserted model does', async () => {
    const model = await adapted();
    const out = join(folder, 'adapted.onnx');
    await emit(model, { target: 'adapted', adapterIo: 'weights', out });
    expect((await verify(model, out)).worst.relative).toBe(0);
    const served = await emit(model, { target: 'adapted', adapterIo: 'inputs' });
    const names = served.graph.inputs.map(({ name }) => name);
    expect(names).toContain('bert.encoder.layer.0.attention.self.query.lora_A');
  });
});

describe('fold', () => {
  it('refuses other weights than those of the insertion', async () => {
    const artifacts = await emit(await adapted(), { target: 'step', loss: 'classification' });
    const { adapter = '' } = await train({ artifacts, data, maxSteps: 1, out: join(folder, 'refused') });
    expect((await readAdapter(adapter)).record.entries[0]?.method).toBe('lora');

    const other = load(base);
    const [bias] = [...other.graph.initializers].filter(({ name }) => name === 'classifier.bias');
    bias!.tensor = tensorOf('float32', [3], [1, 2, 3]);
    const path = join(folder, 'other.onnx');
    await save(other, path);
    const refused = fold({ model: path, adapter, out: join(folder, 'never.onnx') });
    await expect(refused).rejects.toMatchObject({ code: 'E_INVALID_DATA' });
    expect(readdirSync(folder)).not.toContain('never.onnx');
    const report = await fold({ model: path, adapter, out: join(folder, 'anyway.onnx'), anyBase: true });
    expect(report.proof?.holds).toBe(true);
  });
});

describe('inspect', () => {
  it('knows which operators have gradient rules', () => {
    const { operators, sites } = inspect(load(base));
    const rule = (name: string) => operators.find(({ op }) => op === name)?.gradient;
    expect(sites.length).toBeGreaterThan(10);
    expect(rule('MatMul')).toBe(true);
    expect(operators.some(({ gradient }) => gradient === false)).toBe(true);
  });
});

describe('datasetOf', () => {
  it('says which example is wrong', () => {
    expect(() => datasetOf([{ x: [1, 2] }, { x: [[1, 2], [3]] }], 'mine')).toThrow(/mine, example 1/);
  });
});
