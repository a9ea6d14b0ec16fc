/**
 * Models whose activations go through integers have the sites of the float model, and adapters there change what they
 * change in it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attachAdapter, insert } from '../../passes/insert/insert.js';
import { findSites } from '../../passes/sites/index.js';
import type { Site } from '../../passes/sites/site.js';
import { modelTensors } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { insert as insertDerived } from '../../runtime/library/insert.js';
import { redirectUses } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { parseModel } from '../../src/text/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { numbers, runModel } from '../helpers/run.js';
import { CASES, inputsOf, modelOf, type QuantisedCase, relative } from './fixtures.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'quantised-sites-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Weights of 8 bits, everything else in floats: as close to the float model as there is one. */
const FLOATS = CASES.find(({ name }) => name === 'bert-nbits8') as QuantisedCase;
const OTHERS = CASES.filter(({ architecture, name }) => architecture === 'bert' && name !== FLOATS.name);

function described(site: Site): string {
  const { kind, path } = site;
  const role = 'role' in site ? ` ${site.role}` : '';
  const numbers =
    kind === 'attention' ? ` ${site.heads}×${site.headDim} ${site.scale.toFixed(3)} ${site.cross}` : '';
  const norm = kind === 'sublayer' ? ` ${site.norm.length > 0}` : '';
  return `${kind} ${path}${role}${numbers}${norm}`;
}

/** Ranges that were measured without an adapter cut off what it adds: pairs of quantisation around activations go. */
function withoutRounding({ graph }: Model): void {
  for (const node of graph.nodes()) {
    const from = node.op === 'DequantizeLinear' ? node.input(0).producer : undefined;
    if (from?.op === 'QuantizeLinear') redirectUses(node.output(0), from.input(0));
  }
}

describe.each(OTHERS.map((test) => [test.name, test] as const))('%s', (_name, test) => {
  it('has the sites of the float model', () => {
    // A fused op of the embeddings may not show the place of prompts or positions.
    const of = (one: QuantisedCase) => findSites(modelOf(one)).map(described).sort();
    expect(of(test)).toEqual(of(FLOATS));
  });

  it.each([
    { method: 'pfeiffer', kind: 'sublayer', config: {} },
    { method: 'prefix', kind: 'attention', config: { length: 3, positions: 'keep' } },
  ])('$method changes what it changes in floats', async ({ method, config, kind }) => {
    const adapted = modelOf(FLOATS);
    const { record } = insert(adapted, { method, config, targeting: { targets: 'all' } });
    expect(record.sites.map((site) => site.kind)).toContain(kind);
    const tensors = randomParameters(record, adapted, { seed: 3, std: 0.5 });
    const adapter = await modelTensors({ record, tensors, digest: 'test' });
    const logits = async (one: QuantisedCase, with_: boolean): Promise<number[]> => {
      const model = modelOf(one);
      if (with_) attachAdapter(model, record, adapter, {});
      withoutRounding(model);
      return numbers((await runModel(model, inputsOf(one), { graphOptimizationLevel: 'disabled' })).logits);
    };
    const changes = await Promise.all(
      [FLOATS, test].map(async (one) => {
        const [before, after] = [await logits(one, false), await logits(one, true)];
        return after.map((value, i) => value - (before[i] ?? 0));
      }),
    );
    const [wanted, found] = changes as [number[], number[]];
    expect(relative(found, wanted)).toBeLessThan(0.3);
  });
});

it('biases that are added behind rounded products train and fold', async () => {
  const test = CASES.find(({ name }) => name === 'bert-qdq-int8') as QuantisedCase;
  const adapted = modelOf(test);
  // The vectors of the pooler and of the classifier are integers.
  const { record } = await insertDerived(adapted, {
    method: 'bitfit',
    targeting: { targets: ['query', 'key', 'value', 'dense'], exclude: ['pooler.dense'] },
  });
  const tensors = randomParameters(record, adapted, { seed: 3, std: 0.5 });
  const adapter = { record, tensors, digest: 'test' };
  const beside = modelOf(test);
  attachAdapter(beside, adapter.record, await modelTensors(adapter), {});
  const out = join(folder, 'bitfit.onnx');
  const report = await fold({ model: modelOf(test), adapter, out, anyBase: true });
  expect(report.tensors).toHaveLength(6);
  const run = async (model: Parameters<typeof runModel>[0]) =>
    numbers((await runModel(model, inputsOf(test), { graphOptimizationLevel: 'disabled' })).logits);
  const [base, with_, merged] = [await run(modelOf(test)), await run(beside), await run(readModel(out))];
  expect(relative(with_, base)).toBeGreaterThan(0.05);
  expect(relative(merged, with_)).toBeLessThan(1e-5);
});

it('a factor that is stored as a code scales scores by the number it stands for', () => {
  const qdq = (name: string, of: string) =>
    `${name}q = QuantizeLinear(${of}, s, z) ${name} = DequantizeLinear(${name}q, s, z)`;
  const model = parseModel(`<ir_version: 8, opset_import: ["": 17]>
attention (float[1,2,t,8] q, float[1,2,8,t] k, float[1,2,t,8] v) => (float[1,2,t,8] y)
<float s = {0.01}, int8 z = {0}, int8 c = {30}, float cs = {0.0125}, int8 cz = {2}>
{
  m = MatMul(q, k) ${qdq('a', 'm')}
  f = DequantizeLinear(c, cs, cz)
  n = Mul(a, f) ${qdq('b', 'n')}
  p = Softmax(b) ${qdq('w', 'p')}
  y = MatMul(w, v)
}`);
  const [site] = findSites(model);
  expect(site?.kind === 'attention' && [site.scale, site.heads, site.headDim]).toEqual([
    expect.closeTo(0.35, 6),
    2,
    8,
  ]);
});
