/** Folds into models with quantised weights, by each choice. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attachAdapter, insert } from '../../passes/insert/insert.js';
import { modelTensors } from '../../runtime/adapter-file.js';
import { type FoldReport, fold } from '../../runtime/fold/fold.js';
import type { QuantisedChoice } from '../../runtime/quantize/choice.js';
import { attr } from '../../src/attribute.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { numbers, runModel } from '../helpers/run.js';
import {
  CASES,
  inputsOf,
  modelOf,
  type QuantisedCase,
  quantisedLinears,
  relative,
  weightOnly,
} from './fixtures.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'quantised-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const PLAIN = { graphOptimizationLevel: 'disabled' } as const;

function adapterOf(test: QuantisedCase, std: number) {
  const model = modelOf(test);
  const { record } = insert(model, {
    method: 'lora',
    config: { rank: 2, alpha: 3 },
    targeting: { targets: 'all-linear' },
  });
  return { record, tensors: randomParameters(record, model, { seed: 9, std }), digest: 'test' };
}

interface Folded {
  readonly report: FoldReport;
  readonly merged: Model;
  readonly logits: number[];
  readonly unfolded: number[];
}

async function foldOf(test: QuantisedCase, quantised: QuantisedChoice, std = 0.2): Promise<Folded> {
  const out = join(folder, `${test.name}-${quantised}.onnx`);
  const adapter = adapterOf(test, std);
  const report = await fold({ model: modelOf(test), adapter, out, quantised, anyBase: true, force: true });
  const merged = readModel(out);
  const adapted = modelOf(test);
  attachAdapter(adapted, adapter.record, await modelTensors(adapter), {});
  const logits = numbers((await runModel(merged, inputsOf(test), PLAIN)).logits);
  const unfolded = numbers((await runModel(adapted, inputsOf(test), PLAIN)).logits);
  return { report, merged, logits, unfolded };
}

describe.each(CASES)('$name', (test) => {
  it('keeps the adapter beside quantised weights', async () => {
    const { report, logits, unfolded } = await foldOf(test, 'keep');
    expect(report.impossible.every(({ quantised }) => quantised === true)).toBe(true);
    expect(report.impossible.length).toBeGreaterThanOrEqual(6);
    expect(report.proof?.holds).toBe(true);
    expect(relative(logits, unfolded)).toBeLessThan(1e-5);
  });

  it('folds into floats', async () => {
    const { report, logits, unfolded, merged } = await foldOf(test, 'dequantise');
    expect(report.impossible).toEqual([]);
    expect(report.changes.length).toBeGreaterThanOrEqual(6);
    expect(report.proof?.holds).toBe(true);
    expect(relative(logits, unfolded)).toBeLessThan(weightOnly(test) ? 2e-5 : 0.15);
    // Heads are not adapted and stay as they are.
    const left = quantisedLinears(merged).map(({ path }) => path);
    expect(left.filter((path) => !/classifier|lm_head/.test(path))).toEqual([]);
  });

  it('folds into integers', async () => {
    const { report, logits, unfolded } = await foldOf(test, 'requantise');
    expect(report.impossible).toEqual([]);
    expect(report.changes).toEqual([]);
    expect(report.proof?.holds).toBe(true);
    const adapted = report.tensors.filter(({ dtype }) => dtype.includes('(')).map(({ fidelity }) => fidelity);
    expect(adapted.length).toBeGreaterThanOrEqual(6);
    // A step of 8 bits is a 255th of the range of a group, one of 4 bits a 15th; the update is a third of the weight.
    const coarse = /nbits4|int4|nf4/.test(test.name);
    for (const fidelity of adapted) {
      expect(fidelity?.updateError).toBeLessThan(coarse ? 0.35 : 0.03);
      expect(fidelity?.updateError).toBeGreaterThan(coarse ? 0.05 : 1e-4);
      expect(fidelity?.unchanged).toBeLessThan(0.6);
      expect(fidelity?.relativeUpdate).toBeGreaterThan(0.1);
    }
    expect(relative(logits, unfolded)).toBeLessThan(coarse ? 0.2 : 0.06);
  });
});

it('says when integers swallow a short fine-tune', async () => {
  const test = CASES.find(({ name }) => name === 'llama-nbits4') as QuantisedCase;
  const { report } = await foldOf(test, 'requantise', 0.03);
  for (const { fidelity } of report.tensors) {
    expect(fidelity?.unchanged).toBeGreaterThan(0.9);
    expect(fidelity?.updateError).toBeGreaterThan(0.5);
  }
});

it.each(['keep', 'dequantise', 'requantise'] as const)('verifies what it wrote: %s', async (quantised) => {
  const test = CASES.find(({ name }) => name === 'bert-dynamic-int8') as QuantisedCase;
  const options = { model: modelOf(test), adapter: adapterOf(test, 0.2), quantised, anyBase: true };
  const { verification } = await fold({ ...options, out: join(folder, `${quantised}.onnx`), verify: true });
  expect(verification?.pass).toBe(true);
  expect(verification?.worst.relative).toBeLessThan(quantised === 'requantise' ? 0.1 : 1e-5);
  // Without an output there is a plan and no proof.
  const plan = await fold(options);
  expect(plan.changes).toHaveLength(quantised === 'dequantise' ? 7 : 0);
  expect(plan.tensors).toHaveLength(quantised === 'keep' ? 0 : 7);
});

it.each([
  ['prepacked', 'weight_prepacked', 1, /prepacked/],
  ['of an unknown number of bits', 'bits', 3, /3 bits/],
] as const)('refuses weights that are %s', async (_what, attribute, value, message) => {
  const test = CASES.find(({ name }) => name === 'bert-nbits8') as QuantisedCase;
  const model = modelOf(test);
  const adapter = adapterOf(test, 0.2);
  for (const node of model.graph.nodes())
    if (node.op === 'MatMulNBits') node.attributes.set(attribute, attr.int(value));
  for (const quantised of ['dequantise', 'requantise'] as const)
    await expect(fold({ model, adapter, quantised, anyBase: true })).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringMatching(message),
      where: expect.stringContaining('bert.encoder.layer.0'),
      remedy: expect.any(String),
    });
  // Beside them the adapter can stand, whatever they are.
  expect((await fold({ model, adapter, anyBase: true })).impossible).toHaveLength(6);
});
