/** Mixed precision: what becomes half, what stays float32, and what training in it gives. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { planMemory, symbolsOf } from '../../passes/memory/plan.js';
import { loweredTensor } from '../../passes/precision/lowered-tensor.js';
import { ALWAYS_FLOAT32, PRODUCTS } from '../../passes/precision/operators.js';
import { emitStep, type StepArtifacts, type StepOptions } from '../../passes/targets/step.js';
import { artifactsInMemory, type TrainArtifacts, writeArtifacts } from '../../runtime/artifacts.js';
import { Stepper } from '../../runtime/train/stepper.js';
import { inferModel } from '../../src/infer/index.js';
import { decodeNumbers, tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { decodeModel, encodeModel, readModel } from '../../src/onnx/index.js';
import { allows, formalAt, schemaOf } from '../../src/ops/schema.js';
import { type DType, isFloat } from '../../src/types.js';
import { dtypeOf } from '../../src/value-type.js';
import { modelFixture } from '../helpers/fixtures.js';
import { tokenBatch } from '../helpers/token-batch.js';

const folder = mkdtempSync(join(tmpdir(), 'precision-'));
afterAll(() => rmSync(folder, { recursive: true }));
const open: Stepper[] = [];
afterEach(async () => {
  for (const stepper of open.splice(0)) await stepper.close();
});

const LOSS = { bert: 'classification', gpt2: 'causal-lm', llama: 'causal-lm' } as const;

function adapted(file: string): Model {
  const model = readModel(modelFixture(file).path);
  insert(model, {
    method: 'lora',
    config: { rank: 4, alpha: 12, dropout: 0.1 },
    targeting: { targets: 'all-linear' },
    seed: 3,
  });
  return model;
}

function emitted(model: Model, file: string, options: Partial<StepOptions>): StepArtifacts {
  return emitStep(model, { loss: LOSS[file.split('.')[0] as keyof typeof LOSS], clip: 1, ...options });
}

const batch = (made: TrainArtifacts, seed: number) =>
  tokenBatch(made, (i, below) => (7 * i + 3 * seed) % below);

async function losses(file: string, options: Partial<StepOptions>): Promise<number[]> {
  const model = adapted(file);
  const made = await artifactsInMemory(emitted(model, file, options), model);
  const stepper = new Stepper(made, { threads: 1 });
  open.push(stepper);
  await stepper.load(made.initial);
  const run: number[] = [];
  for (let step = 1; step <= 10; step++)
    run.push((await stepper.step([batch(made, step % 2)], { lr: 0.01, step, seeds: [step] })).loss);
  run.push((await stepper.evaluate(batch(made, 1))).loss);
  return run;
}

/** Nodes of a graph outside the loss, with the dtypes of what goes in and comes out. */
function floats(model: Model) {
  return [...model.graph.nodes()].map((node) => {
    const read = node.inputs.map((value) => dtypeOf(value) ?? value?.tensor?.dtype);
    const made = node.outputs.map((value) => dtypeOf(value));
    return { node, op: node.op, read: read.filter(isFloating), made: made.filter(isFloating) };
  });
}

function isFloating(dtype: DType | undefined): dtype is DType {
  return dtype !== undefined && isFloat(dtype);
}

/** Every type parameter of every operator stands for one dtype that the operator takes. */
function checkTypes(model: Model): void {
  for (const node of model.graph.nodes()) {
    const schema = schemaOf(node.domain, node.op, model.opset(node.domain));
    if (schema === undefined) continue;
    const bound = new Map<string, DType>();
    const sides = [
      [node.inputs, schema.inputs],
      [node.outputs, schema.outputs],
    ] as const;
    for (const [values, formals] of sides)
      for (const [i, value] of values.entries()) {
        const dtype = dtypeOf(value) ?? value?.tensor?.dtype;
        const formal = formalAt(formals, i);
        if (dtype === undefined || formal === undefined) continue;
        const where = `${node.label}: ${node.op} of ${dtype}`;
        expect(allows(schema, formal, dtype), where).toBe(true);
        if (!schema.types.has(formal.type) || !formal.homogeneous) continue;
        expect(bound.get(formal.type) ?? dtype, where).toBe(dtype);
        bound.set(formal.type, dtype);
      }
  }
}

/** Bytes of the weight matrices that products and look-ups read. */
function matrixBytes(model: Model): number {
  const matrices = [...model.graph.initializers].filter(
    ({ tensor }) =>
      tensor !== undefined && isFloat(tensor.dtype) && tensor.dims.filter((d) => d > 1).length > 1,
  );
  return matrices.reduce((sum, { tensor }) => sum + tensor!.data.byteLength, 0);
}

/** The graph as a reader of its file sees it. */
function reread(model: Model): Model {
  const read = decodeModel(encodeModel(model));
  expect(inferModel(read)).toEqual([]);
  checkTypes(read);
  return read;
}

describe('mixed precision', () => {
  it.each([
    ['bert.ts.dynamic', 'bfloat16'],
    ['gpt2.dynamo.dynamic', 'float16'],
    ['llama.ts.dynamic', 'bfloat16'],
    ['bert.ts.fp16', 'bfloat16'],
    ['llama.dynamo.bf16', 'float16'],
  ] as const)('%s in %s: products are half, the table stays float32', (file, dtype) => {
    const model = adapted(file);
    const { manifest, step, eval: evaluation } = emitted(model, file, { precision: { dtype } });
    for (const graph of [step!, evaluation]) {
      const read = reread(graph);
      const nodes = floats(read);
      const products = nodes.filter(({ op }) => PRODUCTS.has(op));
      const half = products.filter(({ read: types }) => types.every((type) => type === dtype));
      // Rotary angles are a product of positions, and stay float32.
      expect(products.length - half.length).toBeLessThanOrEqual(file.startsWith('llama') ? 1 : 0);
      expect(half.length).toBeGreaterThan(10);
      for (const { op, read: types, made } of nodes)
        if (ALWAYS_FLOAT32.has(op)) for (const type of [...types, ...made]) expect(type, op).toBe('float32');
      const other = dtype === 'float16' ? 'bfloat16' : 'float16';
      // Outputs of the model keep the dtype that it gives.
      const outputs = new Set(read.graph.outputs.map(({ value }) => value.producer));
      const inside = nodes.filter(({ node }) => !outputs.has(node));
      expect(inside.flatMap(({ made }) => made)).not.toContain(other);
    }
    expect(manifest.precision).toEqual({ params: 'float32', model: dtype });
    expect(new Set(manifest.optimizer.state.map((state) => state.dtype))).toEqual(new Set(['float32']));
    expect(manifest.lossScaling === null).toBe(dtype === 'bfloat16');
    expect(manifest.outputs.model.map((output) => output.dtype)).toEqual(
      emitted(model, file, {}).manifest.outputs.model.map((output) => output.dtype),
    );
  });

  it('keeps operators in float32 that a provider has no kernels for', () => {
    const lacking = new Set(['Gelu', 'Add', 'Equal']);
    const { step } = emitted(adapted('bert.ts.dynamic'), 'bert', {
      precision: { dtype: 'bfloat16', float32: lacking },
    });
    for (const { op, read, made } of floats(reread(step!)))
      if (lacking.has(op)) expect([...read, ...made], op).not.toContain('bfloat16');
  });

  it('stores weights in half the bytes, in memory, in the plan and in the files of a folder', async () => {
    const model = adapted('llama.ts.dynamic');
    const whole = emitted(model, 'llama', {});
    const mixed = emitted(model, 'llama', { precision: { dtype: 'bfloat16' } });
    const out = join(folder, 'emitted');
    await writeArtifacts(out, mixed, model);
    for (const name of ['step', 'eval'] as const) {
      const read = readModel(join(out, `${name}.onnx`));
      expect(matrixBytes(read)).toBe(matrixBytes(whole[name]!) / 2);
    }
    const sizes = new Map(symbolsOf(whole.step!.graph).map((symbol, i) => [symbol, [4, 16][i] ?? 16]));
    const [before, after] = [whole, mixed].map(({ step }) => planMemory(step!, { sizes }));
    expect(after!.weights / before!.weights).toBeLessThan(0.6);
    expect(after!.activations).toBeLessThan(before!.activations);
  });

  it('saturates constants that half precision cannot hold, and shares payloads', () => {
    const lowest = -3.4028234663852886e38;
    const data = tensorOf('float32', [3], [lowest, 1e-3, 70000]);
    const bytes = loweredTensor(data, 'float16');
    expect(Array.from(decodeNumbers(bytes), Number)).toEqual([-32752, 0.0010004043579101562, 32752]);
    expect(loweredTensor(data, 'float16').data).toBe(bytes.data);
    expect([...bytes.data.read(1, 3)]).toEqual([...bytes.data.inline!.subarray(1, 4)]);
  });

  it.each([
    ['bert.ts.dynamic', {}],
    ['gpt2.ts.static', { accumulation: 1, recompute: true }],
    ['llama.dynamo.dynamic', {}],
  ] as const)('%s trains in float16 as in float32', async (file, options) => {
    const whole = await losses(file, options);
    const mixed = await losses(file, { ...options, precision: { dtype: 'float16' } });
    expect(mixed[8]!).toBeLessThan(0.9 * mixed[0]!);
    // Every loss is a sum of rounded products; their errors add up over the steps.
    for (const [i, loss] of whole.entries())
      expect(Math.abs(mixed[i]! - loss), `step ${i + 1}`).toBeLessThan(12 * 2 ** -11 * Math.max(loss, 0.1));
    expect(mixed).not.toEqual(whole);
  });
});
