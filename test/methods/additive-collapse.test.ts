/** Structure of training that is evaluated when an adapter is saved: what remains computes the same. */
import { describe, expect, it } from 'vitest';
import { allParams } from '../../passes/adapter-record.js';
import { attachAdapter } from '../../passes/insert/insert.js';
import { collapseAdapter } from '../../runtime/collapse.js';
import { insert } from '../../runtime/library/insert.js';
import { verify } from '../../runtime/verify.js';
import { readModel } from '../../src/onnx/index.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { randomParameters } from '../helpers/adapters.js';
import { modelFixture } from '../helpers/fixtures.js';

const MODELS = ['bert.dynamo.dynamic', 'gpt2.ts.dynamic', 'llama.ts.dynamic'];

const CASES: readonly (readonly [string, Record<string, unknown>, string, string[]])[] = [
  ['prefix', { length: 3, projection: true, hidden: 5 }, 'prefix', ['prefix_keys', 'prefix_values']],
  ['p-tuning', { length: 3, hidden: 6 }, 'prompt', ['prompt_embeddings']],
  ['p-tuning', { length: 3, encoder: 'lstm', hidden: 6 }, 'prompt', ['prompt_embeddings']],
  [
    'compacter',
    { size: 8, dense: true },
    'houlsby',
    ['adapter_down', 'adapter_down.bias', 'adapter_up', 'adapter_up.bias'],
  ],
  [
    'compacter',
    { size: 8, dense: true, factorized: false, shareRule: false, gating: true, activation: 'relu' },
    'houlsby',
    [
      'adapter_down',
      'adapter_down.bias',
      'adapter_gate',
      'adapter_gate.bias',
      'adapter_up',
      'adapter_up.bias',
    ],
  ],
  [
    'prefix',
    { length: 3, projection: true, gating: true, positions: 'keep' },
    'prefix',
    ['prefix_gate', 'prefix_gate.bias', 'prefix_keys', 'prefix_values'],
  ],
];

describe.each(CASES)('%s %j', (method, config, remains, keys) => {
  it.each(MODELS)('on %s', async (name) => {
    const base = modelFixture(name).path;
    const { record } = await insert(readModel(base), { method, config });
    const tensors = randomParameters(record);
    const saved = await collapseAdapter({ record, tensors });
    expect(saved.record.entries.map((entry) => entry.method)).toEqual([remains]);
    const endings = allParams(saved.record).map(
      ({ key }) => keys.find((ending) => key.endsWith(`.${ending}`)) ?? key,
    );
    expect([...new Set(endings)].sort()).toEqual(keys);

    const trained = readModel(base);
    attachAdapter(trained, record, tensors);
    const served = readModel(base);
    const values = new Map<string, Tensor>(
      [...saved.tensors].map(([key, { dtype, dims, data }]) => [key, tensorOfBytes(dtype, dims, data)]),
    );
    attachAdapter(served, saved.record, values);
    expect((await verify(trained, served)).pass).toBe(true);
    expect((await verify(base, served)).pass).toBe(false);
  });
});
