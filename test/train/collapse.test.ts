/** Training-only structure: evaluated once when the adapter is saved, gone from what is served and folded. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { readAdapterRecord } from '../../passes/adapter-record.js';
import { attachAdapter } from '../../passes/insert/insert.js';
import { defineMethod } from '../../passes/methods/contract/method.js';
import lora from '../../passes/methods/lora.js';
import { findSites } from '../../passes/sites/index.js';
import { emitAdapted } from '../../passes/targets/adapted.js';
import { type AdapterFile, modelTensors, readAdapter } from '../../runtime/adapter-file.js';
import { collapseAdapter } from '../../runtime/collapse.js';
import { fold } from '../../runtime/fold/fold.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { datasetOf } from '../../runtime/library/dataset.js';
import { emit } from '../../runtime/library/emit.js';
import { insert } from '../../runtime/library/insert.js';
import { adapterOfCheckpoint } from '../../runtime/train/save.js';
import { train } from '../../runtime/train/train.js';
import { verify } from '../../runtime/verify.js';
import type { Value } from '../../src/graph.js';
import { normal, randomStream, zeros } from '../../src/initializer.js';
import { readModel } from '../../src/onnx/index.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { cliJson } from '../cli/support.js';
import { repositoryRoot } from '../helpers/fixtures.js';

const base = join(repositoryRoot, 'fixtures/models/bert.ts.dynamic.onnx');
const layer = 'bert.encoder.layer.0.attention.self';
const folder = mkdtempSync(join(tmpdir(), 'collapse-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A = tanh(Z C) ⊙ m, m the means of the base's rows; C is shared. Its product with B is a LoRA. */
const factor = (op: Ops, w: Value, Z: Value, C: Value) =>
  op.Mul(op.Tanh(op.MatMul(Z, C)), op.ReduceMean(w, [1], { keepdims: 1 }));

const hyper = defineMethod({
  id: 'hyper',
  summary: 'A factor that a small network computes while training',
  paper: { title: 'A test', arxiv: '0000.00000' },
  config: z.strictObject({ rank: z.int().default(2), plain: z.boolean().default(false) }),
  shared: (_sites, { rank }) => ({ C: { shape: [3, rank], init: normal(0.7) } }),
  sites: {
    linear: {
      params: ({ inDim, outDim }, { rank }) => ({
        Z: { shape: [inDim, 3], init: normal(0.5) },
        B: { shape: [rank, outDim], init: zeros },
      }),
      attach: (op, { x, y, w }, { Z, B, C }) => ({
        y: op.Add(y, op.MatMul(op.MatMul(x, factor(op, w, Z, C)), B)),
      }),
      fold: (op, { w }, { Z, B, C }) => ({ w: op.Add(w, op.MatMul(factor(op, w, Z, C), B)) }),
      collapse: {
        when: ({ plain }) => !plain,
        method: lora,
        config: ({ rank }) => ({ rank, alpha: 2 * rank }),
        values: (op, { w }, { Z, B, C }) => ({ A: op.Div(factor(op, w, Z, C), 2), B }),
      },
    },
  },
});

const data = datasetOf(
  Array.from({ length: 8 }, (_, row) => {
    const random = randomStream(3, `row ${row}`);
    return {
      input_ids: Array.from({ length: 6 }, () => Math.floor(random() * 60)),
      attention_mask: Array(6).fill(1),
      token_type_ids: Array(6).fill(0),
      labels: row % 3,
    };
  }),
);

/** The query weight of the first layer as formulas see it, [in, out]. */
async function weight() {
  const site = findSites(readModel(base)).find(({ path }) => path === `${layer}.query`);
  if (site?.kind !== 'linear' || site.weight.value.tensor === undefined) throw new Error('no such site');
  expect(site.weight.transposed).toBe(false);
  const { tensor } = site.weight.value;
  return { dims: tensor.dims, data: numbersOf(await loadTensor(tensor)) as Float32Array };
}

const methods = [hyper];
let result: Awaited<ReturnType<typeof train>>;
let saved: AdapterFile;

async function adapted() {
  const model = readModel(base);
  await insert(model, {
    entries: [
      { method: hyper, targeting: { targets: ['query'] } },
      { method: 'lora', config: { rank: 1, alpha: 16 }, targeting: { targets: ['value'] } },
    ],
  });
  return model;
}

beforeAll(async () => {
  const artifacts = await emit(await adapted(), {
    target: 'step',
    loss: 'classification',
    out: join(folder, 'step'),
  });
  const options = { batchSize: 4, maxSteps: 4, checkpointEvery: 4, schedule: { learningRate: 0.05 } };
  result = await train({ artifacts, data, out: join(folder, 'run'), ...options });
  saved = await readAdapter(result.adapter ?? '');
}, 60_000);

describe('an adapter with training-only structure', () => {
  it('is saved as sites of the simpler method, with the values that the formulas give', async () => {
    const { record, tensors } = saved;
    expect(record.entries).toMatchObject([
      { method: 'lora', config: { rank: 2, alpha: 4, rslora: false, dropout: 0 } },
      { method: 'lora', config: { rank: 1, alpha: 16, rslora: false, dropout: 0 } },
    ]);
    expect(record.formulas).toBeUndefined();
    expect(record.sites.map(({ entry, path }) => [entry, path])).toEqual([
      [0, 'bert.encoder.layer.0.attention.self.query'],
      [0, 'bert.encoder.layer.1.attention.self.query'],
      [1, 'bert.encoder.layer.0.attention.self.value'],
      [1, 'bert.encoder.layer.1.attention.self.value'],
    ]);
    expect([...tensors.keys()].sort()).toEqual(
      record.sites.flatMap(({ path }) => [`${path}.lora_A`, `${path}.lora_B`]).sort(),
    );
    const numbers = async (tensor: Tensor) => numbersOf(await loadTensor(tensor));
    const Z = numbersOf(result.params.get(`${layer}.query.Z`)!);
    const C = numbersOf(result.params.get('hyper.C')!);
    const A = await numbers(tensors.get(`${layer}.query.lora_A`)!);
    const w = await weight();
    const inDim = w.dims[0]!;
    for (let i = 0; i < inDim; i++)
      for (let r = 0; r < 2; r++) {
        let sum = 0;
        for (let k = 0; k < 3; k++) sum += Z[i * 3 + k]! * C[k * 2 + r]!;
        const row = w.data.subarray(i * w.dims[1]!, (i + 1) * w.dims[1]!);
        const mean = row.reduce((a, b) => a + b, 0) / row.length;
        // float32 sums of 32 products.
        expect(Math.abs(A[i * 2 + r]! - (Math.tanh(sum) * mean) / 2)).toBeLessThan(1e-6);
      }
    expect([...A].some((value) => Math.abs(value) > 1e-3)).toBe(true);
    expect([...(await numbers(tensors.get(`${layer}.query.lora_B`)!))]).toEqual([
      ...numbersOf(result.params.get(`${layer}.query.B`)!),
    ]);
  });

  it('counts what is trained and what is stored', () => {
    const dim = 32;
    // Per query Z and B, C once; per value A and B of rank 1. Stored: A and B everywhere.
    expect(result.trainable).toBe(2 * (dim * 3 + 2 * dim) + 6 + 2 * (2 * dim));
    expect(result.stored).toBe(2 * (4 * dim) + 2 * (2 * dim));
  });

  it('computes what the trained structure computes, unfolded, emitted and folded', async () => {
    const served = readModel(base);
    attachAdapter(served, saved.record, await modelTensors(saved));
    const trained = await adapted();
    const before = { record: readAdapterRecord(trained), tensors: result.params };
    const unfolded = readModel(base);
    const raw = [...before.tensors].map(
      ([key, { dtype, dims, data }]) => [key, tensorOfBytes(dtype, dims, data)] as const,
    );
    attachAdapter(unfolded, before.record, new Map(raw), { methods });
    const same = await verify(unfolded, emitAdapted(served, { adapterIo: 'weights' }));
    expect(same.pass).toBe(true);
    const started = await verify(base, served);
    expect(started.pass).toBe(false);
    // The digest in the collapsed record is that of the base: no `anyBase`.
    const folded = await fold({
      model: base,
      adapter: result.adapter ?? '',
      out: join(folder, 'merged.onnx'),
      verify: true,
    });
    expect(folded.proof?.holds).toBe(true);
    expect(folded.verification?.pass).toBe(true);
  });

  it('gives the same file for the checkpoint of the last step', async () => {
    const out = join(folder, 'from-checkpoint.safetensors');
    const artifacts = await emit(await adapted(), { target: 'step', loss: 'classification' });
    await adapterOfCheckpoint(artifacts, result.checkpoint ?? '', out);
    expect(readFileSync(out).equals(readFileSync(result.adapter ?? ''))).toBe(true);
    // The adapted model will do instead of the graphs.
    await adapterOfCheckpoint(await adapted(), result.checkpoint ?? '', out, { force: true });
    expect(readFileSync(out).equals(readFileSync(result.adapter ?? ''))).toBe(true);
    const other = readModel(base);
    await insert(other, { method: 'lora', targeting: { targets: ['key'] } });
    await expect(adapterOfCheckpoint(other, result.checkpoint ?? '', join(folder, 'none'))).rejects.toThrow(
      /no parameter of the model/,
    );
  });

  it('comes from the command line too, which does not know the method', async () => {
    const out = join(folder, 'from-command.safetensors');
    const { checkpoint } = result;
    const { json } = await cliJson('adapter', join(folder, 'step'), '-c', checkpoint ?? '', '-o', out);
    expect(json).toMatchObject({ adapter: out, methods: 'lora', stored: result.stored });
    expect(readFileSync(out).equals(readFileSync(result.adapter ?? ''))).toBe(true);
  });

  it('names the tensor of the base that is missing', async () => {
    const model = await adapted();
    await expect(
      collapseAdapter({ record: readAdapterRecord(model), tensors: result.params }),
    ).rejects.toThrow(/not in the model/);
  });

  it('stays as it is where the configuration does not collapse', async () => {
    const model = readModel(base);
    const report = await insert(model, {
      method: hyper,
      config: { plain: true },
      targeting: { targets: ['query'] },
    });
    expect(report.record.formulas).toBeUndefined();
    expect(report.record.sites.every(({ collapse }) => collapse === undefined)).toBe(true);
  });
});
