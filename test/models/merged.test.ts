/** Merged decoders: two exports as branches of one If, their weights shared in the outer graph. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { planFold } from '../../passes/fold/plan.js';
import { attachAdapter, insert } from '../../passes/insert/insert.js';
import type { InsertEntry } from '../../passes/insert/plan.js';
import { branchesPass } from '../../passes/normalize/branches.js';
import { runPasses } from '../../passes/runner.js';
import { findSites } from '../../passes/sites/index.js';
import { emitStep, type StepOptions } from '../../passes/targets/step.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { artifactsInMemory } from '../../runtime/artifacts.js';
import { fold } from '../../runtime/fold/fold.js';
import { datasetOf } from '../../runtime/library/dataset.js';
import { insert as insertDerived } from '../../runtime/library/insert.js';
import { train } from '../../runtime/train/train.js';
import { verify } from '../../runtime/verify.js';
import { Value, walkGraphs, walkNodes } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { readModel, writeModel } from '../../src/onnx/index.js';
import { parseModel, printModel } from '../../src/text/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { fixturePath } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import { decoderOf, generate, off, step } from './decoding.js';

const path = fixturePath('decoders', 'gpt2.merged.onnx');
const LORA: InsertEntry = {
  method: 'lora',
  config: { rank: 3, alpha: 5 },
  targeting: { targets: 'all-linear' },
};
const data = datasetOf(
  Array.from({ length: 8 }, (_, row) => {
    const ids = Array.from({ length: 5 + (row % 2) }, (_, i) => 2 + ((row * 7 + i * 3) % 30));
    return { input_ids: ids, labels: ids };
  }),
);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'merged-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function losses(name: string, options: Partial<StepOptions>): Promise<readonly number[]> {
  const model = readModel(path);
  insert(model, LORA);
  const emitted = emitStep(model, {
    loss: 'causal-lm',
    schedule: { id: 'constant', learningRate: 2e-2 },
    ...options,
  });
  const result = await train({
    artifacts: await artifactsInMemory(emitted, model),
    data,
    out: join(folder, name),
    batchSize: 4,
    maxSteps: 12,
    epochs: 20,
  });
  return result.losses;
}

describe('a merged decoder', () => {
  test('has every module once, called from both branches', () => {
    const sites = findSites(readModel(path));
    const own = sites.flatMap((site) => (site.callOf === undefined ? [`${site.kind} ${site.path}`] : []));
    const calls = sites.flatMap(({ kind, callOf }) => (callOf === undefined ? [] : [`${kind} ${callOf}`]));
    for (const kind of ['linear', 'embedding', 'norm', 'attention', 'sublayer'])
      expect(sites.filter((site) => site.kind === kind).length % 2).toBe(0);
    expect(own).toContain('linear transformer.h.0.attn.c_attn');
    expect(new Set(calls).size).toBe(calls.length);
    for (const name of calls) expect(own).toContain(name);
  });

  test('holds one pair of factors for both branches, outside of them', () => {
    const model = readModel(path);
    const report = insert(model, LORA);
    expect(report.record.sites.map((site) => site.path)).toEqual([
      'transformer.h.0.attn.c_attn',
      'transformer.h.0.attn.c_proj',
      'transformer.h.0.mlp.c_fc',
      'transformer.h.0.mlp.c_proj',
    ]);
    const outer = new Set([...model.graph.initializers].map(({ name }) => name));
    for (const { params } of report.record.sites)
      for (const { name } of Object.values(params)) {
        expect(outer).toContain(name);
        const stored = [...model.graph.initializers].find((value) => value.name === name)!;
        const graphs = new Set([...stored.users].map((node) => node.graph?.name));
        expect(graphs).toEqual(new Set(['no_past', 'with_past']));
      }
    // Readers in the other branch are calls of the same module and no strangers.
    expect(report.shared).toEqual([]);
  });

  test('is folded once for both branches, and generates the same', async () => {
    const model = readModel(path);
    const { record } = insert(model, LORA);
    const tensors = randomParameters(record, model);
    const adapter = join(folder, 'random.safetensors');
    await writeAdapter(adapter, record, tensors);
    const unfolded = readModel(path);
    attachAdapter(unfolded, record, tensors);
    const out = join(folder, 'folded.onnx');
    const report = await fold({ model: path, adapter, out, verify: true });
    expect(report.proof?.holds).toBe(true);
    expect(report.tensors).toHaveLength(4);
    expect(report.copies).toEqual([]);
    expect(report.verification?.pass).toBe(true);
    expect(report.verification?.cases.map(({ label }) => label)).toContain('without a past');
    const [base, before, after] = await Promise.all(
      [readModel(path), unfolded, readModel(out)].map(decoderOf),
    );
    const wanted = await generate(before!, [5, 9, 2], 5);
    const found = await generate(after!, [5, 9, 2], 5);
    expect(found.ids).toEqual(wanted.ids);
    for (const [i, logits] of wanted.logits.entries())
      expect(off(found.logits[i]!, logits)).toBeLessThan(1e-4);
    expect(off((await generate(base!, [5, 9, 2], 1)).logits[0]!, wanted.logits[0]!)).toBeGreaterThan(1e-2);
  });

  test('trains the branch without a past, or the other with an empty one', async () => {
    const chosen = await losses('chosen', {});
    const other = await losses('other', { inputs: { use_cache_branch: true } });
    expect(chosen.at(-1)).toBeLessThan(chosen[0]! - 0.5);
    for (const [i, loss] of other.entries()) expect(loss).toBeCloseTo(chosen[i]!, 5);
  });

  test('takes one prefix for both branches', async () => {
    const model = readModel(path);
    const { record } = insert(model, { method: 'prefix', config: { length: 2 } });
    expect(record.sites.filter(({ kind }) => kind === 'attention')).toHaveLength(1);
    expect(emitStep(model, { loss: 'causal-lm' }).manifest.params).toHaveLength(2);
    const prefixed = readModel(path);
    attachAdapter(prefixed, record, randomParameters(record, model, { std: 1 }));
    const [base, own] = await Promise.all([readModel(path), prefixed].map(decoderOf));
    const found = await generate(own!, [5, 9, 2], 4);
    const whole = await step(own!, [found.ids.slice(0, -1)], undefined);
    expect(off(whole.logits.slice(-32), found.logits.at(-1)!)).toBeLessThan(1e-4);
    expect(off((await generate(base!, [5, 9, 2], 1)).logits[0]!, found.logits[0]!)).toBeGreaterThan(1e-2);
  });

  test('leaves neither If nor pasts in training graphs', () => {
    const model = readModel(path);
    insert(model, LORA);
    const texts = [{}, { use_cache_branch: false }, { use_cache_branch: true }].map((inputs) => {
      const { step, eval: evaluation, manifest } = emitStep(model, { loss: 'causal-lm', inputs });
      for (const graph of [step!, evaluation])
        expect([...walkNodes(graph.graph)].filter(({ op }) => op === 'If')).toEqual([]);
      expect(manifest.batch.map(({ name }) => name)).toEqual([
        'input_ids',
        'attention_mask',
        'position_ids',
        'labels',
      ]);
      return printModel(step!);
    });
    expect(texts[1]).toBe(texts[0]);
    expect(texts[2]).not.toBe(texts[0]);
    expect([...walkNodes(model.graph)].filter(({ op }) => op === 'If')).toHaveLength(1);
  });

  test('whose branch is left to the data has no gradient, and says how to get one', () => {
    const model = readModel(path);
    insert(model, LORA);
    expect(() => emitStep(model, { loss: 'causal-lm', inputs: { use_cache_branch: 'feed' } })).toThrow(
      expect.objectContaining({
        code: 'E_NO_GRADIENT',
        where: expect.stringMatching(/lora_A.*optimum::if.*loss/),
        remedy: expect.stringContaining('--set'),
      }),
    );
  });
});

/** One linear behind two branches, whose bias each branch stores for itself. */
const BIASES = `
<ir_version: 8, opset_import: ["": 17]>
g (float[n,3] x, bool[1] go) => (float[n,2] y) <float[3,2] "layer.weight" = {1, 2, 3, -1, 0.5, 2}>
{
  y = If (go) <
    then_branch = t () => (float[n,2] a) <float[2] then_bias = {0.5, -1}> {
      h = MatMul(x, "layer.weight")
      a = Add(h, then_bias)
    },
    else_branch = e () => (float[n,2] b) <float[2] else_bias = {0.5, -1}> {
      m = MatMul(x, "layer.weight")
      s = Add(m, else_bias)
      b = Relu(s)
    }
  >
}`;

test('a bias that both branches store is folded into both', async () => {
  const model = parseModel(BIASES);
  const { record } = await insertDerived(model, { method: 'bitfit', targeting: { targets: ['layer'] } });
  expect(record.sites).toHaveLength(1);
  const tensors = randomParameters(record, model);
  const adapter = join(folder, 'biases.safetensors');
  await writeAdapter(adapter, record, tensors);
  const unfolded = parseModel(BIASES);
  attachAdapter(unfolded, record, tensors);
  const out = join(folder, 'biases.onnx');
  const report = await fold({ model: parseModel(BIASES), adapter, out });
  expect(report.proof?.holds).toBe(true);
  expect(report.tensors.map(({ name }) => name).sort()).toEqual(['else_bias', 'then_bias']);
  for (const go of [0, 1]) {
    const feeds = {
      x: new ort.Tensor('float32', Float32Array.of(1, -2, 3, 0.3, 0.1, 2), [2, 3]),
      go: new ort.Tensor('bool', Uint8Array.of(go), [1]),
    };
    const [wanted, found, base] = await Promise.all(
      [unfolded, readModel(out), parseModel(BIASES)].map(async (one) =>
        numbers((await runModel(one, feeds)).y),
      ),
    );
    expect(off(found!, wanted!)).toBeLessThan(1e-6);
    expect(off(base!, wanted!)).toBeGreaterThan(1e-2);
  }
});

/** As tools wrote it before they moved shared weights out: every branch has all of them, under the same names. */
function withCopies(): Model {
  const model = readModel(path);
  const outer = [...model.graph.initializers];
  for (const branch of [...walkGraphs(model.graph)].slice(1)) {
    const copies = new Map<Value, Value>();
    for (const node of branch.nodes())
      for (const [index, input] of node.inputs.entries()) {
        if (input === null || !outer.includes(input)) continue;
        const copy = copies.get(input) ?? new Value({ name: input.label.replace('_merged_0', '') });
        copy.tensor = input.tensor;
        copy.type = input.type;
        if (!copies.has(input)) branch.addInitializer(copy);
        copies.set(input, copy);
        node.setInput(index, copy);
      }
  }
  model.graph.initializers.clear();
  return model;
}

test('weights that each branch has a copy of are one module, and folded into both', async () => {
  const base = join(folder, 'copies.base.onnx');
  await writeModel(withCopies(), base);
  const model = readModel(base);
  const { record } = insert(model, LORA);
  expect(record.sites.map((site) => site.path)).toEqual([
    'transformer.h.0.attn.c_attn',
    'transformer.h.0.attn.c_proj',
    'transformer.h.0.mlp.c_fc',
    'transformer.h.0.mlp.c_proj',
  ]);
  const tensors = randomParameters(record, model);
  const adapter = join(folder, 'copies.safetensors');
  await writeAdapter(adapter, record, tensors);
  const out = join(folder, 'copies.onnx');
  const report = await fold({ model: base, adapter, out, verify: true });
  expect(report.proof?.holds).toBe(true);
  expect(report.verification?.pass).toBe(true);
  expect(report.tensors).toHaveLength(8);
  // The model whose weights are shared becomes the same.
  const shared = readModel(path);
  attachAdapter(shared, record, tensors);
  expect((await verify(shared, out)).pass).toBe(true);
});

const LOOP = `
<ir_version: 8, opset_import: ["": 17]>
looped (float[batch,4] x) => (float[batch,4] y)
<
  float[4,4] weight = {1,0,0,1, 0,1,1,0, 1,1,0,0, 0,0,1,1}, float[4,4] head = {1,0,0,1, 0,1,1,0, 1,1,0,0, 0,0,1,1},
  int64 count = {3}, bool yes = {1}
>
{
  h = Loop (count, yes, x) <body = body (int64 i, bool go, float[batch,4] state) => (bool on, float[batch,4] next) {
    on = Identity(go)
    product = MatMul(state, weight)
    next = Tanh(product)
  }>
  y = MatMul(h, head)
}`;
const SCAN = `
<ir_version: 8, opset_import: ["": 17]>
scanned (float[batch,4] start, float[length,batch,4] x) => (float[batch,4] y)
<float[4,4] weight = {1,0,0,1, 0,1,1,0, 1,1,0,0, 0,0,1,1}>
{
  y, all = Scan <num_scan_inputs = 1, body = body (float[batch,4] state, float[batch,4] item) => (float[batch,4] next, float[batch,4] copy) {
    product = MatMul(state, weight)
    next = Add(product, item)
    copy = Identity(next)
  }> (start, x)
}`;

describe('loops', () => {
  test.each([
    ['Loop', LOOP],
    ['Scan', SCAN],
  ])('a module inside a %s is adapted, and has no gradient, with the path', (op, text) => {
    const model = parseModel(text);
    const paths = new Map([['weight', 'cell']]);
    insert(model, { method: 'lora', config: { rank: 2 }, targeting: { targets: ['cell'] }, paths });
    expect(() => emitStep(model, { loss: 'mse' })).toThrow(
      expect.objectContaining({
        code: 'E_NO_GRADIENT',
        message: expect.stringContaining(op),
        where: expect.stringMatching(new RegExp(`cell\\.lora_A → ${op}.*✗ → .*loss`)),
        remedy: expect.stringContaining('unrolled'),
      }),
    );
  });

  test('a module behind a loop is trained', () => {
    const model = parseModel(LOOP);
    const paths = new Map([['head', 'head']]);
    insert(model, { method: 'lora', config: { rank: 2 }, targeting: { targets: ['head'] }, paths });
    const { step } = emitStep(model, { loss: 'mse' });
    expect([...step!.graph.nodes()].filter(({ op }) => op === 'Loop')).toHaveLength(1);
  });
});

describe('branches of a known condition', () => {
  const inlined = (text: string): string => {
    const model = parseModel(text);
    inferModel(model);
    runPasses(model, [branchesPass], { validate: 'edit' });
    return printModel(model);
  };

  test('move into the graph, nested ones too, with their constants and under the outer name', () => {
    const text = inlined(`
<ir_version: 8, opset_import: ["": 17]>
g (float[n] x, bool other) => (float[n] y, float[n] z) <bool yes = {1}>
{
  no = Constant <value = bool[1] {0}> ()
  y, z = If (yes) <
    then_branch = t () => (float[n] a, float[n] x) <float two = {2}> {
      a = If (no) <
        then_branch = tt () => (float[n] r) { r = Neg(x) },
        else_branch = te () => (float[n] r) { s = Mul(x, two)  r = Add(s, x) }
      >
    },
    else_branch = e () => (float[n] a, float[n] b) { a = Neg(x)  b = Abs(x) }
  >
}`);
    const model = parseModel(text);
    expect([...walkGraphs(model.graph)]).toHaveLength(1);
    const ops = [...model.graph.nodes()].map(({ op }) => op);
    // The text returns an input through an Identity.
    expect(ops.filter((op) => op !== 'Constant' && op !== 'Identity')).toEqual(['Mul', 'Add']);
    expect(model.graph.outputs.map(({ name }) => name)).toEqual(['y', 'z']);
  });

  test('stay where an input decides', () => {
    const text = `
<ir_version: 8, opset_import: ["": 17]>
g (float[n] x, bool go) => (float[n] y)
{
  y = If (go) <
    then_branch = t () => (float[n] a) { a = Neg(x) },
    else_branch = e () => (float[n] a) { a = Abs(x) }
  >
}`;
    expect(inlined(text)).toContain('If');
  });
});

test('no pass reads a weight', () => {
  const model = readModel(path);
  for (const graph of walkGraphs(model.graph))
    for (const value of graph.initializers) {
      const { tensor } = value;
      if (tensor === undefined || tensor.data.byteLength <= 256) continue;
      const read = () => {
        throw new Error(`'${value.label}' was read`);
      };
      value.tensor = { ...tensor, data: { byteLength: tensor.data.byteLength, read } };
    }
  const { record } = insert(model, LORA);
  expect(
    emitStep(model, { loss: 'causal-lm', inputs: { use_cache_branch: true } }).manifest.params,
  ).toHaveLength(8);
  expect(planFold(readModel(path), record).tasks).toHaveLength(4);
});
