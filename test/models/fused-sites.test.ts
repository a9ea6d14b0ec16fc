/** What methods can do inside fused ops, and what they say where they cannot. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attachAdapter, insert } from '../../passes/insert/insert.js';
import { unfuseAttention } from '../../passes/normalize/unfuse.js';
import { runPasses } from '../../passes/runner.js';
import { findSites } from '../../passes/sites/find.js';
import type { LinearSite } from '../../passes/sites/site.js';
import { modelTensors } from '../../runtime/adapter-file.js';
import { digestWeights } from '../../runtime/digest.js';
import { fold } from '../../runtime/fold/fold.js';
import { insert as insertDerived } from '../../runtime/library/insert.js';
import { SessionHost, type Tensors } from '../../runtime/session.js';
import { inferModel } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { encodeModel, readModel } from '../../src/onnx/index.js';
import { parseModel } from '../../src/text/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { refuses } from '../runtime/refuses.js';
import { checkAdapter, outputsOf, worst } from './adapters.js';
import { checkedFixtures, storedInputs, storedTensors } from './fixtures.js';

let host: SessionHost;
let folder: string;
beforeAll(() => {
  host = new SessionHost();
  folder = mkdtempSync(join(tmpdir(), 'fused-sites-'));
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await host.close();
});

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
});

describe('a method that acts inside fused attention', () => {
  const prefix = { method: 'prefix', config: { length: 3, positions: 'keep' } } as const;
  const fused = ({ graph }: Model): number =>
    [...graph.nodes()].filter(({ qualifiedOp }) => /Attention$/.test(qualifiedOp)).length;

  it.each([
    ['bert.optimizer.attention', 2],
    ['bert.optimizer.multi-head', 2],
    ['llama.genai.fp32', 2],
  ])('has it taken apart in %s, and others have not', async (name, count) => {
    const { path, batches } = fixture(name);
    const model = readModel(path);
    const report = await insertDerived(model, prefix);
    expect(report.opened).toHaveLength(count);
    expect(fused(model)).toBe(0);
    expect(report.record.sites.filter(({ kind }) => kind === 'attention')).toHaveLength(count);
    // The adapter is of the fused base: it is attached to it again, and computes the same.
    expect(report.record.base).toBe(await digestWeights(readModel(path)));
    const tensors = randomParameters(report.record, model, { seed: 3 });
    const adapter = { record: report.record, tensors, digest: 'test' };
    const attached = readModel(path);
    attachAdapter(attached, report.record, await modelTensors(adapter), {});
    expect(
      worst(await outputsOf(host, path, batches), await outputsOf(host, attached, batches)),
    ).toBeGreaterThan(1e-4);
    const lora = readModel(path);
    expect(insert(lora, { method: 'lora' }).opened).toEqual([]);
    expect(fused(lora)).toBe(count);
  });

  it('changes what it changes in a model whose attention is not fused', async () => {
    const [plain, other] = [
      fixture('distilbert.session.extended'),
      fixture('distilbert.optimizer.attention'),
    ];
    const model = readModel(plain.path);
    const { record, opened } = await insertDerived(model, prefix);
    expect(opened).toEqual([]);
    const tensors = randomParameters(record, model, { seed: 3 });
    const adapted = await Promise.all(
      [plain, other].map(async ({ path }) => {
        const attached = readModel(path);
        attachAdapter(attached, record, await modelTensors({ record, tensors, digest: 'test' }), {});
        return outputsOf(host, attached, plain.batches);
      }),
    );
    const [a, b] = adapted as [Tensors, Tensors];
    expect(worst(await outputsOf(host, plain.path, plain.batches), a)).toBeGreaterThan(1e-4);
    expect(worst(a, b)).toBeLessThanOrEqual(2e-5);
  });

  /** Folds a LoRA with a prefix beside it: refused as a whole, and the same as the unfolded model where the prefix stays. */
  async function keptBesideFold(name: string, config: Readonly<Record<string, unknown>>) {
    const { path, batches } = fixture(name);
    const model = readModel(path);
    const entries = [
      { method: 'lora', config: { rank: 2, alpha: 3 } },
      { method: 'prefix', config },
    ];
    const { record } = await insertDerived(model, { entries });
    const tensors = randomParameters(record, model, { seed: 3, std: 0.2 });
    const adapter = { record, tensors, digest: 'test' };
    const out = join(folder, `${name}.kept.onnx`);
    await refuses(() => fold({ model: path, adapter, out }), 'E_UNSUPPORTED', /prefix does not, because/);
    const report = await fold({ model: path, adapter, out, keep: true });
    expect(report.proof?.holds).toBe(true);
    expect(report.tensors.length).toBeGreaterThan(0);
    const attached = readModel(path);
    attachAdapter(attached, record, await modelTensors(adapter), {});
    const unfolded = await outputsOf(host, attached, batches);
    expect(worst(await outputsOf(host, path, batches), unfolded)).toBeGreaterThan(1e-2);
    expect(worst(unfolded, await outputsOf(host, out, batches))).toBeLessThanOrEqual(2e-5);
    return { path, record, tensors };
  }

  it.each(['bert.optimizer.multi-head', 'bert.optimizer.attention'])(
    'stays beside what folds, of a LoRA and a prefix in %s',
    async (name) => {
      const { path, record, tensors } = await keptBesideFold(name, prefix.config);
      // Alone, a LoRA folds into the base's own graph.
      const sites = record.sites.filter(({ entry }) => entry === 0);
      const alone = {
        record: { ...record, sites, entries: record.entries.slice(0, 1) },
        tensors,
        digest: 'test',
      };
      const merged = join(folder, `${name}.merged.onnx`);
      expect((await fold({ model: path, adapter: alone, out: merged })).proof?.holds).toBe(true);
      expect(fused(readModel(merged))).toBe(2);
    },
  );

  it('keeps what shifts rotary positions inside the operator beside what folds', async () => {
    const { record } = await keptBesideFold('gemma.genai.fp32', { length: 3 });
    expect(record.sites.map(({ kind }) => kind)).toContain('position');
  });

  it('leaves an operator without a formula alone beside one that has it, and says so', () => {
    const some = (count: number) => Array.from({ length: count }, (_, i) => (i % 7) / 10).join(', ');
    const model = parseModel(`<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
one (float[1,1,8] x) => (float[1,1,8] y) <float[8,24] w = {${some(192)}}, float[24] b = {${some(24)}}> {
  a = com.microsoft.Attention <num_heads = 2> (x, w, b)
  y = com.microsoft.DecoderMaskedMultiHeadAttention <num_heads = 2> (a, a, a)
}`);
    const { opened, skipped, record } = insert(model, prefix);
    expect(opened).toHaveLength(1);
    expect(record.sites).toHaveLength(1);
    expect(skipped).toEqual([
      {
        path: expect.stringContaining('DecoderMaskedMultiHeadAttention'),
        method: 'prefix',
        reason: expect.stringMatching(/cannot be taken apart: it decodes one token/),
      },
    ]);
  });

  it('is refused before anything changes where no formula is known', () => {
    const { path } = fixture('bert.optimizer.multi-head');
    const model = readModel(path);
    const before = encodeModel(model);
    expect(() => insert(model, { ...prefix, targeting: { targets: ['nowhere'] } })).toThrow(/nowhere/);
    expect(encodeModel(model)).toEqual(before);
    const unknown = parseModel(`<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
one (float[1,1,8] q, float[1,1,8] k, float[1,1,8] v) => (float[1,1,8] y) {
  y = com.microsoft.DecoderMaskedMultiHeadAttention <num_heads = 2> (q, k, v)
}`);
    expect(() => insert(unknown, prefix)).toThrow(
      /DecoderMaskedMultiHeadAttention .* cannot be taken apart: it decodes one token.*eager/s,
    );
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
});
