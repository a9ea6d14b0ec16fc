/** Several adapters made one, against peft's `add_weighted_adapter`. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fold } from '../../runtime/fold/fold.js';
import { readPeft } from '../../runtime/peft/read.js';
import { weightedAdapter } from '../../runtime/weighted/combine.js';
import { mix } from '../../runtime/weighted/mix.js';
import { readModel } from '../../src/onnx/index.js';
import { fixturePath, modelFixture, numbersOf, readTensors } from '../helpers/fixtures.js';
import { firstLogits, peftFolder, relativeError } from './folders.js';

const TOLERANCE = 1e-5;
const { combinations, weights } = JSON.parse(readFileSync(fixturePath('peft', 'cases.json'), 'utf8')) as {
  combinations: string[];
  weights: number[];
};
const adapters = ['llama-lora', 'llama-second'].map(peftFolder);
const fixture = modelFixture('llama.ts.dynamic');

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-weighted-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function expected(combination: string): number[] {
  const tensor = readTensors(fixturePath('peft', 'llama.safetensors')).get(`combined.${combination}`)!;
  return Array.from(numbersOf(tensor));
}

describe('adapters', () => {
  it.each(combinations)('combine by %s as in peft', async (combination) => {
    const out = join(folder, `${combination}.onnx`);
    await fold({
      model: fixture.path,
      adapter: adapters,
      combine: { weights, combination, density: 0.5 },
      out,
    });
    const error = relativeError(await firstLogits(readModel(out), fixture), expected(combination));
    expect(error).toBeLessThanOrEqual(TOLERANCE);
  });

  it('add up where nothing is said', async () => {
    const summed = join(folder, 'sum.onnx');
    await fold({ model: fixture.path, adapter: adapters, out: summed });
    const first = join(folder, 'first.onnx');
    await fold({ model: fixture.path, adapter: adapters[0]!, out: first });
    const both = join(folder, 'both.onnx');
    await fold({ model: first, adapter: adapters[1]!, out: both });
    const error = relativeError(
      await firstLogits(readModel(summed), fixture),
      await firstLogits(readModel(both), fixture),
    );
    expect(error).toBeLessThanOrEqual(TOLERANCE);
  });

  it('of (IA)³ mix their vectors', async () => {
    const base = readModel(fixture.path);
    const one = await readPeft(peftFolder('llama-ia3'), { base });
    const half = await weightedAdapter([one, one], { weights: [0.25, 0.75] });
    expect(half.record.sites).toEqual(one.record.sites);
    for (const [key, tensor] of half.tensors) {
      const theirs = one.tensors.get(key)!.data;
      expect(
        Buffer.compare(tensor.data.read(0, tensor.data.byteLength), theirs.read(0, theirs.byteLength)),
      ).toBe(0);
    }
  });

  it('of methods without a sum, in wrong numbers or of an unknown kind are errors', async () => {
    const base = readModel(fixture.path);
    const [lora, dora] = await Promise.all(
      ['llama-lora', 'llama-dora'].map((name) => readPeft(peftFolder(name), { base })),
    );
    await expect(weightedAdapter([dora!, dora!])).rejects.toMatchObject({ code: 'E_UNSUPPORTED' });
    await expect(weightedAdapter([lora!, dora!])).rejects.toMatchObject({ code: 'E_UNSUPPORTED' });
    await expect(weightedAdapter([lora!, lora!], { weights: [1] })).rejects.toMatchObject({
      code: 'E_USAGE',
    });
    await expect(weightedAdapter([lora!], { combination: 'sum' })).rejects.toMatchObject({ code: 'E_USAGE' });
  });
});

describe('DARE', () => {
  const tensors = [0, 1].map((k) => Float64Array.from({ length: 20_000 }, (_, i) => Math.sin(i + 7 * k) + 2));
  const options = { density: 0.4, sign: 'total', seed: 3, key: 'w' } as const;
  const mean = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0) / values.length;

  it('keeps a share of the entries and their expectation', () => {
    const [tensor] = tensors as [Float64Array];
    const kept = mix('dare_linear', { tensors: [tensor], weights: [1] }, options);
    const share = kept.filter((value) => value !== 0).length / kept.length;
    // Four standard deviations of a mean of 20 000 draws.
    expect(Math.abs(share - 0.4)).toBeLessThan(4 * Math.sqrt((0.4 * 0.6) / 20_000));
    expect(Math.abs(mean(kept) - mean(tensor))).toBeLessThan(4 * Math.sqrt((4.5 * 0.6) / 0.4 / 20_000));
    for (const [i, value] of kept.entries()) if (value !== 0) expect(value).toBeCloseTo(tensor[i]! / 0.4, 12);
  });

  it('draws the same for the same seed, and another mask for another', () => {
    const run = (seed: number) => mix('dare_ties', { tensors, weights: [1, 1] }, { ...options, seed });
    expect(run(3)).toEqual(run(3));
    expect(run(3)).not.toEqual(run(4));
  });
});
