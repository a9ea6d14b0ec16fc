import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { defaultTolerance, difference } from '../../runtime/compare.js';
import { numbersOf, tensorOfNumbers } from '../../runtime/host-tensor.js';
import { inputSymbols, randomInputs } from '../../runtime/random-inputs.js';
import { shapeCase } from '../../runtime/sizes.js';
import { verify } from '../../runtime/verify.js';
import { decodeModel, readModel } from '../../src/onnx/index.js';
import { refuses } from './refuses.js';
import { tinyModel } from './tiny.js';

const folder = fileURLToPath(new URL('../../fixtures/models/', import.meta.url));
const fixtures = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.onnx')) : [];

/** y = x·w, c = argmax; w given. */
function linear(w: number[], op = 'MatMul') {
  return tinyModel({
    inputs: { x: ['float32', ['batch', 2]] },
    outputs: { y: ['float32', ['batch', 2]], c: ['int64', ['batch', 1]] },
    initializers: { w: tensorOfNumbers('float32', [2, 2], w) },
    nodes: [
      { op, in: ['x', 'w'], out: ['y'] },
      { op: 'ArgMax', in: ['y'], out: ['c'], attrs: { axis: 1 } },
    ],
  });
}

describe('verify', () => {
  it('passes a model against itself and fails it against another', async () => {
    const w = [1, -2, 0.5, 3];
    const same = await verify(linear(w), linear(w), { structure: true });
    expect(same).toMatchObject({ pass: true, structure: null, worst: { relative: 0, maxAbs: 0 } });
    expect(same.cases.map((entry) => entry.label)).toEqual(['batch=2', 'batch=1', 'batch=3 padded']);

    const other = await verify(linear(w), linear([1, -2, 0.5, 3.01]));
    expect(other.pass).toBe(false);
    const y = other.cases[0]!.outputs[0]!;
    // Only the last weight differs: |Δy| = 0.01·max|x₂|.
    const x = numbersOf(randomInputs(decodeModel(linear(w)), { sizes: { batch: 2 } }).x!);
    expect(y.maxAbs).toBeCloseTo(0.01 * Math.max(Math.abs(x[1]!), Math.abs(x[3]!)), 5);
    expect(y.cosine).toBeGreaterThan(0.999);
    expect(y.top1).toBe(1);
    expect((await verify(linear(w), linear([1, -2, 0.5, 3.01]), { tolerance: 0.1 })).pass).toBe(true);
  });

  it('tolerates rounding and nothing more', async () => {
    const w = [1, -2, 0.5, 3];
    const rounded = w.map((v, i) => v * (1 + (i % 2 === 0 ? 1 : -1) * 2 ** -23));
    expect((await verify(linear(w), linear(rounded))).pass).toBe(true);
    const off = w.map((v) => v * (1 + 2 ** -19));
    expect((await verify(linear(w), linear(off))).pass).toBe(false);
    // Half-precision weights allow half-precision differences.
    const half = decodeModel(
      tinyModel({
        inputs: { x: ['float16', [2, 2]] },
        outputs: { y: ['float16', [2, 2]] },
        initializers: { w: tensorOfNumbers('float16', [2, 2], w) },
        nodes: [{ op: 'MatMul', in: ['x', 'w'], out: ['y'] }],
      }),
    );
    expect(defaultTolerance(half) / defaultTolerance(decodeModel(linear(w)))).toBe(2 ** 13);
  });

  it('reports missing outputs, other types, and other structures', async () => {
    const w = [1, -2, 0.5, 3];
    const renamed = tinyModel({
      inputs: { x: ['float32', ['batch', 2]] },
      outputs: { z: ['float32', ['batch', 2]] },
      initializers: { w: tensorOfNumbers('float32', [2, 2], w) },
      nodes: [{ op: 'MatMul', in: ['x', 'w'], out: ['z'] }],
    });
    await refuses(verify(linear(w), renamed), 'E_VERIFY', /no output 'y'/);
    const mapped = await verify(renamed, linear(w), { outputs: { z: 'y' }, structure: true });
    expect(mapped.cases.every((entry) => entry.pass)).toBe(true);
    expect(mapped.pass).toBe(false);
    expect(mapped.structure).toMatch(/node 0/);
    await refuses(verify(renamed, linear(w), { outputs: { z: 'c' } }), 'E_VERIFY', /disagree on the type/);
  });

  it('measures differences by hand-computed numbers', () => {
    const a = tensorOfNumbers('float32', [2, 2], [3, 4, 0, 1]);
    const b = tensorOfNumbers('float32', [2, 2], [3, 4.5, 2, 1]);
    const found = difference(a, b, 'y');
    expect(found).toMatchObject({ maxAbs: 2, relative: 0.5, top1: 0.5 });
    expect(found.cosine).toBeCloseTo(28 / Math.sqrt(26 * 34.25), 12);
    const nan = tensorOfNumbers('float32', [2, 2], [3, Number.NaN, 0, 1]);
    expect(difference(nan, nan, 'y').maxAbs).toBe(0);
    expect(difference(a, nan, 'y').maxAbs).toBe(Number.POSITIVE_INFINITY);
    const infinite = tensorOfNumbers('float32', [2, 2], [3, Number.POSITIVE_INFINITY, 0, 1]);
    expect(difference(infinite, infinite, 'y')).toMatchObject({ maxAbs: 0, relative: 0 });
    expect(difference(a, infinite, 'y').maxAbs).toBe(Number.POSITIVE_INFINITY);
  });

  it('sizes symbols that are expressions over others', () => {
    const { sizes } = shapeCase(['past', 'seq', 'past + seq', '2*seq - 1'], { past: 3, seq: 4 }, false);
    expect(sizes).toEqual({ past: 3, seq: 4, 'past + seq': 7, '2*seq - 1': 7 });
  });
});

describe.skipIf(fixtures.length === 0)('real exports', () => {
  it('makes inputs that stay inside the vocabulary, masks with whole rows kept', () => {
    const model = readModel(`${folder}bert.ts.dynamic.onnx`);
    const symbols = inputSymbols(model);
    expect(symbols.length).toBeGreaterThan(0);
    const sizes = Object.fromEntries(symbols.map((symbol, i) => [symbol, i === 0 ? 5 : 16]));
    const inputs = randomInputs(model, { sizes, padded: true, seed: 1 });
    const again = randomInputs(model, { sizes, padded: true, seed: 1 });
    expect(inputs).toEqual(again);
    const vocabulary = [...model.graph.initializers].find((v) => v.label.includes('word_embeddings'))!.tensor!
      .dims[0]!;
    const ids = [...numbersOf(inputs.input_ids!)];
    expect(Math.max(...ids)).toBeLessThan(vocabulary);
    // 80 uniform draws below V exceed V/2 with probability 1 − 2^-80.
    expect(Math.max(...ids)).toBeGreaterThan(vocabulary / 2);
    const mask = numbersOf(inputs.attention_mask!);
    for (let row = 0; row < 5; row++) {
      const cells = [...mask.subarray(row * 16, row * 16 + 16)];
      expect(cells[0]).toBe(1);
      expect(cells).toEqual([...cells].sort((a, b) => b - a));
    }
    expect([...mask]).toContain(0);
  });

  for (const name of ['bert.ts.dynamic', 'bert.dynamo.static', 'gpt2.dynamo.dynamic', 'llama.ts.dynamic'])
    it(`runs ${name} at several shapes against itself in memory`, async () => {
      const path = `${folder}${name}.onnx`;
      const report = await verify(path, readModel(path), { structure: true, session: { threads: 1 } });
      expect(report.pass, JSON.stringify(report.worst)).toBe(true);
      expect(report.cases.length).toBeGreaterThan(1);
      for (const { outputs } of report.cases)
        for (const output of outputs) expect(output.cosine).toBeCloseTo(1, 9);
    });
});
