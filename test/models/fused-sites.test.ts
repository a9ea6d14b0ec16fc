/** What methods can do inside fused ops, and what they say where they cannot. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { unfuseAttention } from '../../passes/normalize/unfuse.js';
import { runPasses } from '../../passes/runner.js';
import { findSites } from '../../passes/sites/find.js';
import type { LinearSite } from '../../passes/sites/site.js';
import { SessionHost, type Tensors } from '../../runtime/session.js';
import { inferModel } from '../../src/infer/index.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { checkAdapter, outputsOf, worst } from './adapters.js';
import { checkedFixtures, storedInputs, storedTensors } from './fixtures.js';

let host: SessionHost;
beforeAll(() => {
  host = new SessionHost();
});
afterAll(() => host.close());

function fixture(name: string) {
  const found = checkedFixtures('fused', (one) => one.name === name)[0];
  if (found === undefined) throw new Error(`no fixture ${name}`);
  const batches = [0, 1].map((i) => storedInputs(found, storedTensors(found), `case${i}`) as Tensors);
  return { path: found.path, batches };
}

const linearsOf = (name: string): readonly LinearSite[] =>
  findSites(readModel(fixture(name).path)).filter((site) => site.kind === 'linear');

describe('fused attention taken apart', () => {
  it.each([
    ['bert.optimizer.attention', 2],
    ['bert.optimizer.multi-head', 2],
    ['distilbert.optimizer.attention', 1],
    ['llama.genai.fp32', 2],
    ['gemma2.genai.fp32', 2],
  ])('%s computes the same, and its attention is found', async (name, count) => {
    const { path, batches } = fixture(name);
    const model = readModel(path);
    inferModel(model);
    runPasses(model, [unfuseAttention]);
    const attention = findSites(model).filter(({ kind }) => kind === 'attention');
    expect(attention).toHaveLength(count);
    const [fused, apart] = [await outputsOf(host, path, batches), await outputsOf(host, model, batches)];
    expect(worst(fused, apart)).toBeLessThanOrEqual(2e-5);
  });

  it('takes a prefix', async () => {
    const { path, batches } = fixture('bert.optimizer.multi-head');
    const model = readModel(path);
    inferModel(model);
    runPasses(model, [unfuseAttention]);
    const { record } = insert(model, { method: 'prefix', config: { length: 3 } });
    expect(record.sites.filter(({ kind }) => kind === 'attention')).toHaveLength(2);
    expect(randomParameters(record, model, { seed: 3 }).size).toBeGreaterThan(0);
    expect(
      worst(await outputsOf(host, path, batches), await outputsOf(host, model, batches)),
    ).toBeGreaterThan(1e-4);
  });
});

describe('biases that a fused op adds later', () => {
  it('are those of the linear before it', () => {
    const biases = linearsOf('bert.optimizer.multi-head').map(({ path, bias }) => [
      path.split('.').slice(-2).join('.'),
      bias?.node.op,
    ]);
    expect(Object.fromEntries(biases)).toMatchObject({
      'self.query': 'MultiHeadAttention',
      'self.value': 'MultiHeadAttention',
      'intermediate.dense': 'BiasGelu',
      'output.dense': 'SkipLayerNormalization',
      'pooler.dense': 'Gemm',
    });
  });

  it.each(['bert.optimizer.attention', 'bert.optimizer.multi-head', 'gpt2.optimizer.skip-norm'])(
    'of %s are trained by BitFit and folded',
    async (name) => {
      const { path, batches } = fixture(name);
      const check = await checkAdapter(host, path, batches, { method: 'bitfit' });
      expect(check.proved).toBe(true);
      expect(check.effect).toBeGreaterThan(1e-3);
      expect(check.error).toBeLessThanOrEqual(check.tolerance);
    },
  );
});

describe('projections inside a fused op', () => {
  it.each(['bert.optimizer.attention', 'distilbert.optimizer.attention'])('of %s take HiWi', async (name) => {
    const { path, batches } = fixture(name);
    const inside = linearsOf(name).filter(({ y, packedIn }) => y === undefined && packedIn !== undefined);
    expect(inside.length % 3).toBe(0);
    const targeting = { targets: inside.map((site) => site.path) };
    const check = await checkAdapter(host, path, batches, { method: 'hiwi', targeting });
    expect(check.proved).toBe(true);
    expect(check.effect).toBeGreaterThan(1e-3);
    expect(check.error).toBeLessThanOrEqual(check.tolerance);
  });

  it('refuse a method that needs their output', () => {
    const model = readModel(fixture('bert.optimizer.attention').path);
    const targeting = { targets: ['bert.encoder.layer.0.attention.self.query'] };
    const insertion = (): unknown => insert(model, { method: 'lora', config: { gating: true }, targeting });
    expect(insertion).toThrow(/cannot act on the weights here: its gate depends on the input/);
    expect(insertion).toThrow(/Export the model without fusion/);
  });

  it('refuse a prefix, and say how to take attention apart', () => {
    const model = readModel(fixture('bert.optimizer.attention').path);
    expect(() => insert(model, { method: 'prefix' })).toThrow(/--pass unfuse-attention/);
  });
});
