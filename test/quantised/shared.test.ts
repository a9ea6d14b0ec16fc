/** Weights with several readers, and quantised products whose scales and zero points differ in size. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attachAdapter, insert } from '../../passes/insert/insert.js';
import { modelTensors } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { quantize } from '../../runtime/quantize/quantize.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { parseModel } from '../../src/text/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { numbers, runModel } from '../helpers/run.js';
import { refuses } from '../runtime/refuses.js';
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

/** Two calls of MatMulNBits; they read the same codes and, unless told otherwise, the same scales. */
function blockProducts(names: readonly string[], { apart = false } = {}): Model {
  const codes = Array.from({ length: (SIZE * SIZE) / 2 }, (_, i) => (i * 37) % 251);
  const scales = Array.from({ length: SIZE }, (_, i) => (0.02 + 0.001 * i).toFixed(4));
  const called = (name: string | undefined) => (name === undefined ? '' : `["${name}/MatMul"] `);
  const product = `com.microsoft.MatMulNBits <K = ${SIZE}, N = ${SIZE}, block_size = ${SIZE}, bits = 4>`;
  // A name of no module leaves the modules theirs.
  const codesName = names.length === 0 ? '"proj.weight_Q4"' : 'w1';
  const second = apart ? 'w2' : codesName;
  return parseModel(`<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
calls (float[n, ${SIZE}] x) => (float[n, ${SIZE}] y)
<uint8[${SIZE}, 1, ${SIZE / 2}] ${codesName} = {${codes.join(', ')}},
 uint8[${SIZE}, 1, ${SIZE / 2}] w2 = {${codes.join(', ')}}, float[${SIZE}] s = {${scales.join(', ')}}>
{
  ${called(names[0])}a = ${product} (x, ${codesName}, s)
  r = Tanh(a)
  ${called(names[1])}y = ${product} (r, ${second}, s)
}`);
}

async function adapterFor(build: () => Model, targets: string[] | 'all' = 'all') {
  const adapted = build();
  const { record } = insert(adapted, {
    method: 'lora',
    config: { rank: 2, alpha: 2 },
    targeting: { targets },
  });
  const tensors = randomParameters(record, adapted, { seed: 5, std: 0.2 });
  const adapter = { record, tensors, digest: 'test' };
  const beside = build();
  attachAdapter(beside, record, await modelTensors(adapter), {});
  const x = float32(wave(3 * SIZE, 1.3), [3, SIZE]);
  return { adapter, x, expected: numbers((await runModel(beside, { x })).y) };
}

describe('codes that two products read', () => {
  const once = () => blockProducts([]);
  const modules = () => blockProducts(['first', 'second']);

  it('become one float tensor where one module is called twice, and both calls change', async () => {
    const { adapter, x, expected } = await adapterFor(once);
    const out = join(folder, 'calls.onnx');
    const report = await fold({ model: once(), adapter, out, quantised: 'dequantise', anyBase: true });
    expect(report.changes.length).toBe(2);
    const merged = readModel(out);
    expect([...merged.graph.nodes()].map(({ op }) => op)).toEqual(['MatMul', 'Tanh', 'MatMul']);
    const weights = [...merged.graph.initializers].filter(({ tensor }) => tensor?.dtype === 'float32');
    expect(weights.map(({ name }) => name)).toEqual(['proj.weight']);
    expect(relative(numbers((await runModel(merged, { x })).y), expected)).toBeLessThan(1e-5);
  });

  it('become a tensor for each of two modules that are adapted apart', async () => {
    const { adapter, x, expected } = await adapterFor(modules);
    expect(adapter.record.sites.map(({ path }) => path)).toEqual(['first', 'second']);
    const out = join(folder, 'modules.onnx');
    await fold({ model: modules(), adapter, out, quantised: 'dequantise', anyBase: true });
    expect(relative(numbers((await runModel(readModel(out), { x })).y), expected)).toBeLessThan(1e-5);
  });

  it('are not written for a module that keeps its numbers', async () => {
    for (const targets of [['first'], 'all'] as const) {
      const { adapter } = await adapterFor(modules, targets === 'all' ? targets : [...targets]);
      const out = join(folder, 'refused.onnx');
      await refuses(
        () => fold({ model: modules(), adapter, out, quantised: 'requantise', anyBase: true }),
        'E_UNSUPPORTED',
        /shared with readers that keep its numbers.*--quantised dequantise/,
      );
    }
    const apart = () => blockProducts(['first', 'second'], { apart: true });
    const { adapter } = await adapterFor(apart);
    await refuses(
      () =>
        fold({
          model: apart(),
          adapter,
          out: join(folder, 'r.onnx'),
          quantised: 'requantise',
          anyBase: true,
        }),
      'E_UNSUPPORTED',
      /'s' of the quantised weight is shared/,
    );
  });
});
