/** `quantize`: every format over exports of both exporters. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { quantizedMatrixOf } from '../../passes/quantize/dequantize.js';
import { FORMATS, type FormatId } from '../../passes/quantize/formats.js';
import { isRefusal } from '../../passes/quantize/products.js';
import { findSites } from '../../passes/sites/index.js';
import type { LinearSite } from '../../passes/sites/site.js';
import { emitStep } from '../../passes/targets/step.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { decode, loadMatrix } from '../../runtime/quantize/codec.js';
import { type QuantizeOptions, quantize } from '../../runtime/quantize/quantize.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { fixturePath } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import { Driver, int64 } from '../targets/driver.js';
import { dequantised, quantisedLinears, relative, withLora } from './fixtures.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'quantise-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ids = int64(
  Array.from({ length: 20 }, (_, i) => 2 + ((i * 7) % 60)),
  [2, 10],
);
const mask = int64(new Array<number>(20).fill(1), [2, 10]);
const inputs = { input_ids: ids, attention_mask: mask };
const PLAIN = { graphOptimizationLevel: 'disabled' } as const;

const linearsOf = (model: Model) =>
  new Map(
    findSites(model)
      .filter((site): site is LinearSite => site.kind === 'linear' && site.packedIn === undefined)
      .map((site) => [site.path, site]),
  );

/** The largest error that rounding to the nearest of `steps` codes over a normal weight's range gives, as a share. */
const CASES: readonly (readonly [FormatId, QuantizeOptions, number])[] = [
  ['int4', { model: '', blockSize: 16 }, 0.11],
  ['int4', { model: '', blockSize: 32, symmetric: false }, 0.1],
  ['int8', { model: '', blockSize: 32 }, 0.007],
  ['nf4', { model: '', blockSize: 32 }, 0.1],
  ['int8-qdq', { model: '' }, 0.007],
];

describe.each(['llama.ts.dynamic', 'distilbert.dynamo.dynamic', 'gpt2.ts.dynamic'])('%s', (name) => {
  const path = fixturePath('models', `${name}.onnx`);

  it.each(CASES)('%s, blocks of $1.blockSize', async (format, options, most) => {
    const out = join(folder, `${name}-${format}-${options.blockSize}.onnx`);
    const report = await quantize({ ...options, model: path, out, format, verify: true, force: true });
    const model = readModel(out);
    const before = linearsOf(readModel(path));
    const after = linearsOf(model);
    expect([...after.keys()]).toEqual([...before.keys()]);
    expect(report.tensors.length).toBeGreaterThanOrEqual(8);
    expect(report.tensors.flatMap(({ sites }) => sites).length + report.skipped.length).toBe(
      before.size - (before.has('lm_head') || before.has('classifier') ? 1 : 0),
    );
    for (const { sites, accuracy } of report.tensors) {
      // The report is what the file holds.
      const site = after.get(sites[0] as string) as LinearSite;
      const matrix = quantizedMatrixOf(site);
      if (isRefusal(matrix)) throw new Error(matrix.message);
      const source = (before.get(sites[0] as string) as LinearSite).weight;
      const floats = numbersOf(
        await loadTensor(source.value.tensor as NonNullable<typeof source.value.tensor>),
      );
      const stored = decode(matrix, loadMatrix(matrix), matrix.transposed !== source.transposed);
      const error = Math.hypot(...stored.map((v, i) => v - (floats[i] ?? 0))) / Math.hypot(...floats);
      expect(accuracy?.relativeError).toBeCloseTo(error, 6);
      expect(error).toBeLessThan(most);
      expect(error).toBeGreaterThan(most / 20);
    }
    expect(report.verification?.pass).toBe(true);
    expect(statSync(out).size).toBeLessThan(statSync(path).size);
    if (format === 'int8-qdq') return;
    const kernel = numbers((await runModel(model, inputs, PLAIN)).logits);
    expect(
      relative(numbers((await runModel(dequantised(model), inputs, PLAIN)).logits), kernel),
    ).toBeLessThan(2e-5);
  });
});

it('is trained through', async () => {
  const out = join(folder, 'trained.onnx');
  await quantize({
    model: fixturePath('models', 'llama.ts.dynamic.onnx'),
    out,
    format: 'nf4',
    blockSize: 16,
  });
  const adapted = withLora(readModel(out));
  const driver = await Driver.open(adapted, emitStep(adapted, { loss: 'causal-lm' }));
  const batch = { ...inputs, labels: ids };
  const first = numbers((await driver.step(batch, 0.02)).loss)[0] as number;
  for (let i = 0; i < 10; i++) await driver.step(batch, 0.02);
  expect(numbers((await driver.run('eval', batch)).loss)[0]).toBeLessThan(0.8 * first);
  await driver.close();
});

it('selects, plans and leaves what it cannot store', async () => {
  const model = readModel(fixturePath('models', 'bert.ts.dynamic.onnx'));
  const plan = await quantize({
    model,
    format: 'nf4',
    blockSize: 256,
    targeting: { targets: ['query', 'dense'] },
  });
  expect(plan.out).toBeUndefined();
  expect(plan.tensors.every(({ accuracy }) => accuracy === undefined)).toBe(true);
  expect(quantisedLinears(model)).toEqual([]);
  expect(plan.runs).toMatch(/WebGPU/);
  const some = await quantize({
    model: readModel(fixturePath('models', 'bert.ts.fp16.onnx')),
    out: join(folder, 'half.onnx'),
    targeting: { targets: ['query'] },
  });
  expect(some.tensors.map(({ sites }) => sites)).toEqual([
    ['bert.encoder.layer.0.attention.self.query'],
    ['bert.encoder.layer.1.attention.self.query'],
  ]);
  const code = (options: QuantizeOptions) => quantize(options).catch((error: { code: string }) => error.code);
  const path = fixturePath('models', 'bert.ts.bf16.onnx');
  expect(await code({ model: path })).toBe('E_UNSUPPORTED');
  expect(await code({ model, blockSize: 48 })).toBe('E_USAGE');
  expect(await code({ model, format: 'nf4', symmetric: false })).toBe('E_USAGE');
  expect(await code({ model, targeting: { targets: ['nowhere'] } })).toBe('E_NO_MATCH');
});

it('names every format with where it runs', () => {
  for (const { runs, summary } of Object.values(FORMATS)) expect(`${summary} ${runs}`).toMatch(/\w+ .*\w+/);
  expect(FORMATS.nf4.runs).toMatch(/only/);
});
