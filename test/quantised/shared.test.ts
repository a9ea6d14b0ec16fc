/** Weights with several readers, and quantised products whose scales and zero points differ in size. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { quantize } from '../../runtime/quantize/quantize.js';
import { readModel } from '../../src/onnx/index.js';
import { parseModel } from '../../src/text/index.js';
import { numbers, runModel } from '../helpers/run.js';
import { float32 } from '../targets/driver.js';
import { relative } from './fixtures.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'quantised-shared-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const SIZE = 16;
const wave = (count: number, step: number): number[] =>
  Array.from({ length: count }, (_, i) => Math.sin(step * (i + 1)) + 0.3 * Math.cos(0.17 * i * i));

it('keeps apart what readers of one weight make of it', async () => {
  const model = parseModel(`<ir_version: 8, opset_import: ["": 17]>
shared (float[n, ${SIZE}] x) => (float[n, ${SIZE}] a, float[n, ${SIZE}] b, float[n, ${SIZE}] c)
<float[${SIZE}, ${SIZE}] w = {${wave(SIZE * SIZE, 0.7)
    .map((v) => v.toFixed(6))
    .join(', ')}}>
{
  a = MatMul(x, w)
  b = Gemm <transB = 1> (x, w)
  c = Gemm <alpha = 0.25> (x, w)
}`);
  const out = join(folder, 'shared.onnx');
  const { tensors } = await quantize({
    model,
    out,
    format: 'int8',
    blockSize: 16,
    targeting: { targets: 'all' },
  });
  const x = float32(wave(3 * SIZE, 1.3), [3, SIZE]);
  const expected = await runModel(model, { x });
  const found = await runModel(readModel(out), { x });
  for (const name of ['a', 'b', 'c'])
    expect(relative(numbers(found[name]), numbers(expected[name]))).toBeLessThan(0.02);
  expect(tensors.length).toBe(3);
});

it('stores what both branches of an If read where both see it', async () => {
  const model = parseModel(`<ir_version: 8, opset_import: ["": 17]>
branches (bool c, float[n, ${SIZE}] x) => (float[n, ${SIZE}] y)
<float[${SIZE}, ${SIZE}] w = {${wave(SIZE * SIZE, 0.7)
    .map((v) => v.toFixed(6))
    .join(', ')}}>
{
  y = If (c) <
    then_branch = yes () => (float[n, ${SIZE}] p) { p = MatMul(x, w) },
    else_branch = no () => (float[n, ${SIZE}] q) { r = MatMul(x, w) q = Neg(r) }
  >
}`);
  const out = join(folder, 'branches.onnx');
  await quantize({ model, out, format: 'int8', blockSize: 16, targeting: { targets: 'all' } });
  const x = float32(wave(3 * SIZE, 1.3), [3, SIZE]);
  for (const taken of [true, false]) {
    const feeds = { c: new ort.Tensor('bool', [taken], []), x };
    const [expected, found] = [await runModel(model, feeds), await runModel(readModel(out), feeds)];
    expect(relative(numbers(found.y), numbers(expected.y))).toBeLessThan(0.02);
  }
});
