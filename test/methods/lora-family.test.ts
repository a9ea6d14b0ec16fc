/** What the battery and the recorded runs do not show of LoRA and its relatives: settings, sizes, traps. */
import ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { type AdapterRecord, allParams } from '../../passes/adapter-record.js';
import { planFold } from '../../passes/fold/plan.js';
import { planInsert, planModules } from '../../passes/insert/plan.js';
import { configure } from '../../passes/methods/contract/configurable.js';
import type { Method } from '../../passes/methods/contract/method.js';
import dora from '../../passes/methods/dora.js';
import loha from '../../passes/methods/loha.js';
import lora from '../../passes/methods/lora.js';
import { kroneckerShape, splitSize } from '../../passes/methods/parts/kronecker.js';
import { emitStep } from '../../passes/targets/step.js';
import { collapseAdapter } from '../../runtime/collapse.js';
import { type HostTensor, loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { insert } from '../../runtime/library/insert.js';
import { Graph, Value } from '../../src/graph.js';
import { decodeNumbers, tensorOf } from '../../src/literals.js';
import { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { Builder } from '../../src/ops/builder.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { type DType, tensorType } from '../../src/types.js';
import { randomParameters } from '../helpers/adapters.js';
import { modelFixture } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import { floats, irregular, Sketch } from '../sites/graphs.js';
import { MAPPINGS } from './mappings/index.js';
import { references, setValues, TensorFile } from './reference-support.js';

/** `y = x w (+ b)` as a model, x [2, 3, in]. */
function oneLinear(inDim: number, outDim: number, bias = true): Model {
  const s = new Sketch();
  const x = s.input('x', [2, 3, inDim]);
  const plain = s.node('MatMul', [x, s.weight('dense.weight', floats([inDim, outDim], 2))]);
  const y = bias ? s.node('Add', [plain, s.weight('dense.bias', floats([outDim], 3))]) : plain;
  return s.output(y, [2, 3, outDim]).model;
}

const largest = (a: readonly number[]) => Math.max(...a.map(Math.abs));
const difference = (a: readonly number[], b: readonly number[]) => largest(a.map((v, i) => v - b[i]!));

/** Runs a formula over named float32 inputs. */
async function evaluate(
  inputs: Readonly<Record<string, { dims: readonly number[]; data: ArrayLike<number> }>>,
  build: (op: Ops, values: Readonly<Record<string, Value>>) => Value,
): Promise<number[]> {
  const model = new Model(new Graph());
  model.irVersion = 8;
  model.opsets.set('', 18);
  const values = Object.fromEntries(
    Object.entries(inputs).map(([name, { dims }]) => [
      name,
      model.graph.addInput(new Value({ name, type: tensorType('float32', dims) })),
    ]),
  );
  const builder = new Builder(model);
  const result = build(builder.op, values);
  for (const value of builder.initializers) model.graph.addInitializer(value);
  for (const node of builder.nodes) model.graph.append(node);
  model.graph.addOutput('result', result);
  const feeds = Object.entries(inputs).map(([name, { dims, data }]) => [
    name,
    new ort.Tensor('float32', Float32Array.from(data), dims),
  ]);
  return numbers((await runModel(model, Object.fromEntries(feeds))).result);
}

const random = (dims: readonly number[], seed: number, scale = 1) => ({
  dims,
  data: irregular(
    dims.reduce((a, b) => a * b, 1),
    seed,
  ).map((v) => v * scale),
});

/** The slot `y` or `w` that a method gives a linear in a formula, with dropout and barriers of the test's own. */
function attached(
  method: Method,
  op: Ops,
  values: Readonly<Record<string, Value>>,
  config: Readonly<Record<string, unknown>>,
  { dropout = (x: Value) => x, dtype = 'float32' }: { dropout?: (x: Value) => Value; dtype?: DType } = {},
): Readonly<Record<string, Value>> {
  const { x, y, w, b, ...params } = values;
  const [inDim, outDim] = (w!.type?.kind === 'tensor' ? w!.type.shape : []) as number[];
  const site = { path: 'dense', dtype, inDim, outDim, bias: true, role: undefined, x, y, w, b };
  return method.sites.linear!.attach(op, site, params, configure(method, config), {
    dropout,
    stopGradient: (value) => value,
  });
}

describe('dora', () => {
  const inputs = {
    x: random([4, 6], 1),
    y: random([4, 5], 2),
    w: random([6, 5], 3),
    b: random([5], 4),
    A: random([6, 2], 5),
    B: random([2, 5], 6),
    m: random([5], 7),
  };
  const config = { rank: 2, alpha: 3 };

  it("puts dropped inputs into both terms that are added to y, as PEFT's", async () => {
    const mask = random([6], 8);
    const ours = await evaluate({ ...inputs, mask }, (op, { mask: kept, ...values }) => {
      const slots = attached(
        dora,
        op,
        values,
        { ...config, dropout: 0.1 },
        { dropout: (x) => op.Mul(x, kept!) },
      );
      return slots.y!;
    });
    const expected = await evaluate({ ...inputs, mask }, (op, { x, y, w, A, B, m, mask: kept }) => {
      const dropped = op.Mul(x!, kept!);
      const update = op.Mul(op.MatMul(A!, B!), 1.5);
      const gain = op.Div(m!, op.ReduceL2(op.Add(w!, update), [0], { keepdims: 0 }));
      const base = op.Mul(op.MatMul(dropped, w!), op.Sub(gain, 1));
      return op.Add(y!, op.Add(base, op.Mul(op.MatMul(dropped, update), gain)));
    });
    expect(difference(ours, expected)).toBeLessThan(2e-6 * largest(expected));
  });

  it('computes the norms of the updated weight without the updated weight', async () => {
    const wide = {
      x: random([1, 768], 1),
      y: random([1, 96], 2),
      w: random([768, 96], 3, 0.05),
      b: random([96], 4),
      A: random([768, 8], 5, 0.3),
      B: random([8, 96], 6, 0.3),
      m: { dims: [96], data: new Float32Array(96).fill(1) },
    };
    // With y = 1 at b = 0 and A x = 0 what is left of y' is m / n.
    const zero = { dims: wide.x.dims, data: new Float32Array(768) };
    const one = { dims: [1, 96], data: new Float32Array(96).fill(1) };
    const none = { dims: [96], data: new Float32Array(96) };
    const gains = await evaluate({ ...wide, x: zero, y: one, b: none }, (op, values) => {
      return attached(dora, op, values, { rank: 8, alpha: 8 }).y!;
    });
    // In float64, on the host.
    for (let column = 0; column < 96; column++) {
      let square = 0;
      for (let row = 0; row < 768; row++) {
        let sum = wide.w.data[row * 96 + column]!;
        for (let r = 0; r < 8; r++) sum += wide.A.data[row * 8 + r]! * wide.B.data[r * 96 + column]!;
        square += sum * sum;
      }
      expect(gains[column]! * Math.sqrt(square)).toBeCloseTo(1, 5);
    }
  });

  it('leaves columns of zeros alone', async () => {
    const model = oneLinear(6, 4);
    const weight = [...model.graph.initializers].find(({ name }) => name === 'dense.weight')!;
    const pruned = (decodeNumbers(weight.tensor!) as number[]).map((v, i) => (i % 4 === 2 ? 0 : v));
    weight.tensor = tensorOf('float32', [6, 4], pruned);
    const feeds = { x: new ort.Tensor('float32', irregular(36), [2, 3, 6]) };
    const [before] = Object.values(await runModel(model, feeds));
    await insert(model, { method: dora, config: { rank: 2 } });
    const [after] = Object.values(await runModel(model, feeds));
    expect(difference(numbers(after), numbers(before))).toBeLessThan(1e-6);
  });

  it('divides norms in float32 in half-precision models', async () => {
    // Squares of 300 overflow float16, and a zero column has no norm to divide by.
    const w = { dims: [6, 5], data: Float32Array.from({ length: 30 }, (_, i) => (i % 5 === 1 ? 0 : 300)) };
    const norm = Math.sqrt(6) * 300;
    const m = { dims: [5], data: Float32Array.from({ length: 5 }, (_, i) => (i === 1 ? 0 : norm)) };
    const b = { dims: [5], data: new Float32Array(5) };
    const y = await evaluate({ ...inputs, B: random([2, 5], 6, 0), w, m, b }, (op, values) => {
      const half = Object.entries(values).map(([name, value]) => [name, op.Cast(value, { to: 'float16' })]);
      const slots = attached(dora, op, Object.fromEntries(half), config, { dtype: 'float16' });
      return op.Cast(slots.y!, { to: 'float32' });
    });
    // The column of zeros gives b alone; m / n is 1 elsewhere.
    const expected = Array.from(inputs.y.data, (v, i) => (i % 5 === 1 ? 0 : v));
    expect(difference(y, expected)).toBeLessThan(2e-3);
  });

  it('trains without a matrix of the size of the weight', async () => {
    expect(await denseOps(dora, 3)).toEqual([]);
    // Where the update is trained as a weight, there are such matrices.
    expect(await denseOps(loha, 8)).not.toEqual([]);
  });
});

/** Ops of a step graph that give matrices of the size of the adapted weight. */
async function denseOps(method: Method, rank: number): Promise<string[]> {
  const model = readModel(modelFixture('bert.dynamo.dynamic').path);
  await insert(model, { method, config: { rank }, targeting: { targets: ['intermediate.dense'] } });
  const { step } = emitStep(model, { loss: 'classification' });
  const dense = [...step!.graph.nodes()].filter((node) =>
    node.outputs.some((value) => {
      const shape = value?.type?.kind === 'tensor' ? value.type.shape : undefined;
      return shape?.length === 2 && shape.includes(32) && shape.includes(48);
    }),
  );
  // A transposed constant is evaluated once, when a session opens.
  return dense.map(({ op }) => op).filter((op) => op !== 'Transpose');
}

describe('loha', () => {
  it.each([
    [9, 8, 2, 'y'],
    [9, 8, 3, 'w'],
  ])('%i × %i with rank %i replaces %s', async (inDim, outDim, rank, slot) => {
    const inputs = {
      x: random([4, inDim], 1),
      y: random([4, outDim], 2),
      w: random([inDim, outDim], 3),
      b: random([outDim], 4),
      w1_a: random([rank, outDim], 5),
      w1_b: random([inDim, rank], 6),
      w2_a: random([rank, outDim], 7),
      w2_b: random([inDim, rank], 8),
    };
    const config = { rank, alpha: 5 };
    const ours = await evaluate(inputs, (op, values) => {
      const slots = attached(loha, op, values, config);
      expect(Object.keys(slots)).toEqual([slot]);
      return slots.y === undefined
        ? op.Add(values.y!, op.MatMul(values.x!, op.Sub(slots.w!, values.w!)))
        : slots.y;
    });
    const expected = await evaluate(inputs, (op, { x, y, w1_a, w1_b, w2_a, w2_b }) => {
      const update = op.Mul(op.MatMul(w1_b!, w1_a!), op.MatMul(w2_b!, w2_a!));
      return op.Add(y!, op.Mul(op.MatMul(x!, update), 5 / rank));
    });
    expect(difference(ours, expected)).toBeLessThan(5e-6 * largest(expected));
  });
});

describe('Kronecker sizes', () => {
  // Examples of peft.tuners.lokr.layer.factorization, and what methods split.
  it.each([
    [256, -1, [16, 16]],
    [128, -1, [8, 16]],
    [127, -1, [1, 127]],
    [128, 4, [4, 32]],
    [768, -1, [24, 32]],
    [3072, -1, [48, 64]],
    [4096, -1, [64, 64]],
    [12, 5, [3, 4]],
  ])('%i with factor %i is %j', (size, factor, expected) => {
    expect(splitSize(size, factor)).toEqual(expected);
  });

  it('factors W by sides', () => {
    expect(kroneckerShape(768, 3072, -1)).toEqual({ left: [24, 48], right: [32, 64] });
  });

  it.each(['krona', 'lokr'])('%s refuses what no factors are smaller than', (method) => {
    const refused = (config: Record<string, unknown>) => () =>
      planInsert(oneLinear(7, 5), [{ method, config }]);
    expect(refused({})).toThrow(/7 × 5 has no Kronecker factors/);
    expect(() => planInsert(oneLinear(8, 6), [{ method }])).not.toThrow();
  });

  it('names the settings of lokr by what PEFT makes of them', () => {
    const keys = (config: Record<string, unknown>) =>
      planModules(planInsert(oneLinear(32, 48), [{ method: 'lokr', config }]))
        .flatMap(({ params }) => params)
        .map(({ key, spec }) => `${key.replace('dense.lokr_', '')} ${spec.shape.join('x')}`);
    expect(keys({ rank: 3 })).toEqual(['w1 4x6', 'w2_a 3x8', 'w2_b 8x3']);
    expect(keys({ rank: 4 })).toEqual(['w1 4x6', 'w2 8x8']);
    expect(keys({ rank: 2, decomposeBoth: true })).toEqual(['w1_a 2x6', 'w1_b 4x2', 'w2_a 2x8', 'w2_b 8x2']);
  });
});

describe('vera', () => {
  it('shares matrices of the largest sizes', async () => {
    const model = readModel(modelFixture('bert.dynamo.dynamic').path);
    const { record } = await insert(model, {
      method: 'vera',
      config: { rank: 3 },
      targeting: { targets: ['query', 'output.dense', 'intermediate.dense'] },
    });
    const shared = allParams(record).filter(({ trainable }) => !trainable);
    expect(shared.map(({ key, shape }) => [key, shape])).toEqual([
      ['vera_A', [48, 3]],
      ['vera_B', [3, 48]],
    ]);
    for (const { params } of record.sites) expect(params.A?.key).toBe('vera_A');
  });
});

describe('lora-xs', () => {
  it('freezes the truncated decomposition of every weight', async () => {
    const model = oneLinear(9, 7);
    const weight = [...model.graph.initializers].find(({ name }) => name === 'dense.weight')!;
    const w = decodeNumbers(weight.tensor!) as number[];
    await insert(model, { method: 'lora-xs', config: { rank: 7 } });
    const value = (name: string) =>
      decodeNumbers([...model.graph.initializers].find((v) => v.name === name)!.tensor!) as number[];
    const [A, B, R] = [value('dense.lora_A'), value('dense.lora_B'), value('dense.lora_xs')];
    // At full rank A B is W.
    const product = w.map((_, at) => {
      let sum = 0;
      for (let k = 0; k < 7; k++) sum += A[Math.floor(at / 7) * 7 + k]! * B[k * 7 + (at % 7)]!;
      return sum;
    });
    expect(difference(product, w)).toBeLessThan(1e-6);
    expect(largest(R)).toBeLessThan(1e-4);
    expect(largest(R)).toBeGreaterThan(1e-6);
  });

  it('refuses ranks that the weight does not have', () => {
    expect(() => planInsert(oneLinear(6, 4), [{ method: 'lora-xs', config: { rank: 5 } }])).toThrow(
      /6 × 4 weight has no 5 singular vectors/,
    );
  });
});

describe('vb-lora', () => {
  it('refuses modules that its vectors do not divide', () => {
    const plan = (vectorLength: number) => () =>
      planInsert(oneLinear(12, 18), [{ method: 'vb-lora', config: { vectorLength, vectors: 4 } }]);
    expect(plan(4)).toThrow(/12 × 18 cannot be cut into vectors of 4; set vectorLength to a divisor of 6/);
    expect(plan(6)).not.toThrow();
  });

  it('wants a bank that holds the chosen vectors', () => {
    const config = { vectorLength: 6, vectors: 3, topk: 4 };
    expect(() => planInsert(oneLinear(12, 18), [{ method: 'vb-lora', config }])).toThrow(/topk/);
  });

  const cases = references().filter(({ method }) => method === 'vb-lora');
  it.each(cases.map((reference) => [reference.name, reference] as const))(
    '%s saves what peft saves of the k largest logits',
    async (_, reference) => {
      const file = new TensorFile(reference.name);
      const { entries, translate } = MAPPINGS['vb-lora']!;
      const model = readModel(modelFixture(`${reference.architecture}.dynamo.dynamic`).path);
      const [entry] = entries!(reference);
      const { record } = await insert(model, { ...entry!, config: { ...entry!.config, compact: true } });
      for (const [of, when] of [
        ['init', 'initial'],
        ['final', 'final'],
      ] as const) {
        const values = await file.translated(of, reference.parameters, 'value', reference, translate);
        const tensors = setValues(model, record, values);
        const saved = await collapseAdapter({ record, tensors });
        expect(saved.tensors.size).toBe(4 * saved.record.sites.length + 1);
        for (const [key, tensor] of saved.tensors) {
          const ours = Array.from(numbersOf(tensor), Number);
          expect(difference(ours, await file.numbers(`collapsed.${when}.${key}`)), key).toBeLessThan(1e-6);
        }
      }
    },
  );

  it.each([1, 3])('computes the same with the %i chosen vectors alone', async (topk) => {
    const config = { rank: 2, vectors: 5, vectorLength: 6, topk, compact: true };
    const model = oneLinear(12, 18);
    const { record } = await insert(model, { method: 'vb-lora', config });
    const tensors = await randomOnHost(record, model);
    const trained = await foldedWeight(oneLinear(12, 18), record, tensors);
    const saved = await collapseAdapter({ record, tensors });
    expect(saved.record.entries.map(({ method }) => method)).toEqual(['vb-lora-compact']);
    const compact = await foldedWeight(oneLinear(12, 18), saved.record, saved.tensors);
    expect(difference(compact, trained)).toBeLessThan(1e-6);
  });
});

describe('lora', () => {
  const params = (record: AdapterRecord) =>
    allParams(record).map(({ key, shape, lrScale }) => [key, shape, lrScale]);

  it("trains B faster with LoRA+'s ratio", async () => {
    const { record } = await insert(oneLinear(6, 4), {
      method: lora,
      config: { rank: 2, learningRateRatio: 16 },
    });
    expect(params(record)).toEqual([
      ['dense.lora_A', [6, 2], 1],
      ['dense.lora_B', [2, 4], 16],
    ]);
  });

  it('starts the trained bias at the one of the base', async () => {
    const model = oneLinear(6, 4);
    const { record } = await insert(model, { method: lora, config: { rank: 2, bias: 'lora_only' } });
    expect(params(record).map(([key]) => key)).toContain('dense.base_layer.bias');
    const tensor = [...model.graph.initializers].find(({ name }) => name === 'dense.base_layer.bias')!
      .tensor!;
    expect(decodeNumbers(tensor)).toEqual(decodeNumbers(floats([4], 3)));
  });

  it('folds the bias of B into the bias of the module', async () => {
    const model = oneLinear(6, 4);
    const { record } = await insert(model, {
      method: lora,
      config: { rank: 2, alpha: 6, loraBias: true, bias: 'lora_only' },
    });
    const tensors = await randomOnHost(record, model);
    const plan = planFold(oneLinear(6, 4), record);
    const task = plan.tasks.find(({ target }) => target.name === 'dense.bias')!;
    const folded = await runTask(task, tensors);
    const [bias, shift] = ['dense.base_layer.bias', 'dense.lora_B.bias'].map((key) =>
      Array.from(numbersOf(tensors.get(key)!), Number),
    ) as [number[], number[]];
    expect(
      difference(
        folded,
        bias.map((v, i) => v + 3 * shift[i]!),
      ),
    ).toBeLessThan(1e-6);
  });

  it('says why the bias of B cannot fold where the module has none', async () => {
    const { record } = await insert(oneLinear(6, 4, false), {
      method: lora,
      config: { rank: 2, loraBias: true },
    });
    const { impossible } = planFold(oneLinear(6, 4, false), record);
    expect(impossible.map(({ reason }) => reason)).toEqual([expect.stringContaining('loraBias: false')]);
  });
});

type Task = ReturnType<typeof planFold>['tasks'][number];

/** The folded tensor of a task, in ONNX Runtime. Stored tensors are float32 here. */
async function runTask(
  { formula, inputs, target }: Task,
  tensors: ReadonlyMap<string, HostTensor>,
): Promise<number[]> {
  const feeds: Record<string, ort.Tensor> = {};
  for (const { name = '' } of formula.graph.inputs) {
    const source = inputs.get(name) ?? { base: target };
    const tensor = 'param' in source ? tensors.get(source.param.key)! : await loadTensor(source.base.tensor!);
    const values = Array.from(numbersOf(tensor), Number);
    feeds[name] =
      tensor.dtype === 'int64'
        ? new ort.Tensor('int64', BigInt64Array.from(values, BigInt), tensor.dims)
        : new ort.Tensor('float32', Float32Array.from(values), tensor.dims);
  }
  return numbers((await runModel(formula, feeds)).folded);
}

/** The only weight that a record changes, folded. */
async function foldedWeight(
  base: Model,
  record: AdapterRecord,
  tensors: ReadonlyMap<string, HostTensor>,
): Promise<number[]> {
  return runTask(planFold(base, record).tasks[0]!, tensors);
}

/** Random parameters on the host. */
async function randomOnHost(record: AdapterRecord, model: Model): Promise<Map<string, HostTensor>> {
  const tensors = new Map<string, HostTensor>();
  for (const [key, tensor] of randomParameters(record, model)) tensors.set(key, await loadTensor(tensor));
  return tensors;
}
