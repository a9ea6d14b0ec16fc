/** Weights with several readers, and quantised products whose scales and zero points differ in size. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { attachAdapter, insert } from '../../passes/insert/insert.js';
import { modelTensors } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { quantize } from '../../runtime/quantize/quantize.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { parseModel } from '../../src/text/index.js';
import { randomParameters } from '../helpers/adapters.js';
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

/** y = x (C − z) s, where scales are per column and the zero point is one for all, or the other way round. */
function dynamicProduct(scales: number, zeroPoints: number): Model {
  const codes = Array.from({ length: SIZE * SIZE }, (_, i) => 60 + ((i * 37) % 140));
  const step = Array.from({ length: scales }, (_, i) => (0.004 + 0.001 * i).toFixed(4));
  const zero = Array.from({ length: zeroPoints }, (_, i) => 128 - 3 * i);
  return parseModel(`<ir_version: 8, opset_import: ["": 17]>
integers (float[n, ${SIZE}] x) => (float[n, ${SIZE}] y)
<uint8[${SIZE}, ${SIZE}] w = {${codes.join(', ')}},
 float${scales === 1 ? '' : `[${scales}]`} s = {${step.join(', ')}},
 uint8${zeroPoints === 1 ? '' : `[${zeroPoints}]`} z = {${zero.join(', ')}}>
{
  xq, xs, xz = DynamicQuantizeLinear(x)
  yi = MatMulInteger(xq, w, xz, z)
  yf = Cast <to = 1> (yi)
  both = Mul(xs, s)
  y = Mul(yf, both)
}`);
}

it.each([
  [SIZE, 1],
  [1, SIZE],
  [SIZE, SIZE],
  [1, 1],
])('folds into integers with %i scales and %i zero points', async (scales, zeroPoints) => {
  const model = dynamicProduct(scales, zeroPoints);
  const adapted = dynamicProduct(scales, zeroPoints);
  const { record } = insert(adapted, {
    method: 'lora',
    config: { rank: 2, alpha: 2 },
    targeting: { targets: 'all' },
  });
  const tensors = randomParameters(record, adapted, { seed: 5, std: 0.2 });
  const adapter = { record, tensors, digest: 'test' };
  const beside = dynamicProduct(scales, zeroPoints);
  attachAdapter(beside, record, await modelTensors(adapter), {});
  const x = float32(wave(3 * SIZE, 1.3), [3, SIZE]);
  const expected = numbers((await runModel(beside, { x })).y);
  for (const quantised of ['dequantise', 'requantise'] as const) {
    const out = join(folder, `${quantised}-${scales}-${zeroPoints}.onnx`);
    await fold({ model, adapter, out, quantised, anyBase: true });
    expect(relative(numbers((await runModel(readModel(out), { x })).y), expected)).toBeLessThan(0.03);
  }
});
