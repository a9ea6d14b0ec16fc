/** Prefixes in a decoder that takes past keys and values: the same as a longer past that begins with them. */
import ort from 'onnxruntime-node';
import { expect, test } from 'vitest';
import { attachAdapter, insert } from '../../passes/insert/insert.js';
import { fillNormal, randomStream } from '../../src/initializer.js';
import { tensorOf } from '../../src/literals.js';
import { readModel } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import { goldenPath } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';

const path = goldenPath('models/gpt2_past.onnx');
const [LAYERS, BATCH, HEADS, HEAD] = [12, 2, 2, 2];
const [PREFIX, PAST] = [3, 2];

function normals(count: number, key: string): Float64Array {
  const values = new Float64Array(count);
  fillNormal(values, randomStream(7, key));
  return values;
}

test.skipIf(path === undefined)('a prefix is a past that every sequence has', async () => {
  const base = readModel(path as string);
  const adapted = readModel(path as string);
  const { record } = insert(adapted, { method: 'prefix', config: { length: PREFIX, positions: 'shift' } });
  const tensors = new Map<string, Tensor>();
  const prefixes: { keys: Float64Array; values: Float64Array }[] = [];
  for (const { kind, params } of record.sites) {
    if (kind !== 'attention') continue;
    const entry: (typeof prefixes)[number] = { keys: new Float64Array(), values: new Float64Array() };
    for (const role of ['keys', 'values'] as const) {
      const param = params[role];
      if (param === undefined) throw new Error(`no ${role}`);
      entry[role] = normals(HEADS * PREFIX * HEAD, param.key);
      tensors.set(param.key, tensorOf('float32', param.shape, entry[role]));
    }
    prefixes.push(entry);
  }
  expect(prefixes).toHaveLength(LAYERS);
  const prefixed = readModel(path as string);
  attachAdapter(prefixed, record, tensors);

  const ids = new ort.Tensor('int64', BigInt64Array.from([1n, 3n]), [BATCH, 1]);
  const short: Record<string, ort.Tensor> = { input_ids: ids };
  const long: Record<string, ort.Tensor> = { input_ids: ids };
  for (const [layer, prefix] of prefixes.entries()) {
    const past = normals(2 * BATCH * HEADS * PAST * HEAD, `past ${layer}`);
    short[`past_${layer}`] = new ort.Tensor('float32', Float32Array.from(past), [
      2,
      BATCH,
      HEADS,
      PAST,
      HEAD,
    ]);
    const joined = new Float32Array(2 * BATCH * HEADS * (PREFIX + PAST) * HEAD);
    let at = 0;
    for (const [kind, own] of [prefix.keys, prefix.values].entries())
      for (let batch = 0; batch < BATCH; batch++)
        for (let head = 0; head < HEADS; head++) {
          joined.set(own.subarray(head * PREFIX * HEAD, (head + 1) * PREFIX * HEAD), at);
          at += PREFIX * HEAD;
          const from = ((kind * BATCH + batch) * HEADS + head) * PAST * HEAD;
          joined.set(past.subarray(from, from + PAST * HEAD), at);
          at += PAST * HEAD;
        }
    long[`past_${layer}`] = new ort.Tensor('float32', joined, [2, BATCH, HEADS, PREFIX + PAST, HEAD]);
  }
  const wanted = numbers((await runModel(base, long)).last_state);
  const plain = numbers((await runModel(base, short)).last_state);
  const found = numbers((await runModel(prefixed, short)).last_state);
  const off = (other: readonly number[]) =>
    Math.max(...wanted.map((value, i) => Math.abs(value - (other[i] ?? Number.NaN))));
  const scale = Math.max(...wanted.map(Math.abs));
  expect(off(found) / scale).toBeLessThan(1e-5);
  expect(off(plain) / scale).toBeGreaterThan(1e-2);
});
