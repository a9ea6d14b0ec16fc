/** What methods learn of the base's weights before they are inserted: surveys, and initial values derived from them. */
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { insert as insertPass } from '../passes/insert/insert.js';
import { planInsert } from '../passes/insert/plan.js';
import { baseValue, type DerivedInit, derived, type HostArray } from '../passes/methods/contract/derived.js';
import { defineMethod, type Method } from '../passes/methods/contract/method.js';
import type { Survey, SurveyResult } from '../passes/methods/contract/survey.js';
import { deriveValues } from '../runtime/derive/derive.js';
import { surveyed } from '../runtime/derive/survey.js';
import { numbersOf, tensorOfNumbers } from '../runtime/host-tensor.js';
import { insert } from '../runtime/library/insert.js';
import { attr } from '../src/attribute.js';
import { zeros } from '../src/initializer.js';
import type { Model } from '../src/model.js';
import { type Tensor, tensorOfBytes } from '../src/tensor.js';
import { type DType, tensorType } from '../src/types.js';
import { floats, Sketch } from './sites/graphs.js';

const paper = { title: 'Test', arxiv: '0000.00000' };
const config = z.strictObject({ seen: z.number().optional() });

/** A linear method whose one parameter of `shape` starts at `init`. */
function starting(shape: (inDim: number, outDim: number) => number[], init: DerivedInit): Method {
  return defineMethod({
    id: 'starting',
    summary: 'A parameter with a derived initial value',
    paper,
    config,
    sites: {
      linear: {
        params: ({ inDim, outDim }) => ({ p: { shape: shape(inDim, outDim), init } }),
        attach: (op, { y }, { p }) => ({
          y: op.Add(y, op.Mul(op.ReduceSum(p, undefined, { keepdims: 0 }), 0)),
        }),
        fold: { impossible: 'it is a test' },
      },
    },
  });
}

function surveying(survey: Survey): Method {
  return defineMethod({
    id: 'surveying',
    summary: 'A method that looks at weights',
    paper,
    config,
    survey,
    sites: {
      linear: {
        params: () => ({ p: { shape: [1], init: zeros } }),
        attach: (op, { y }, { p }) => ({ y: op.Add(y, p) }),
        fold: { impossible: 'it is a test' },
      },
    },
  });
}

/** `y = factor·(x W) + b` with W [3, 2] stored as [2, 3]. */
function gemm({ factor = 1, dtype = 'float32' as DType } = {}): Model {
  const s = new Sketch();
  const tensor = (dims: number[], data: readonly number[]): Tensor =>
    tensorOfBytes(dtype, dims, tensorOfNumbers(dtype, dims, data).data);
  const y = s.node(
    'Gemm',
    [
      s.input('x', [4, 3], dtype),
      s.weight('fc.weight', tensor([2, 3], WEIGHT)),
      s.weight('fc.bias', tensor([2], [0.5, -4])),
    ],
    { transB: attr.int(1), alpha: attr.float(factor) },
  );
  const { model } = s.output(y, [4, 2]);
  y.type = tensorType(dtype, [4, 2]);
  return model;
}
const WEIGHT = [1, -2, 3, 0.25, 8, 1 / 3];
/** WEIGHT as [3, 2]. */
const SEEN = [1, 0.25, -2, 8, 3, 1 / 3];

function packed(): Model {
  const s = new Sketch();
  const x = s.input('x', [2, 3, 4]);
  const y = s.node(
    'Attention',
    [x, s.weight('layer.0.attention.self.weight', floats([4, 12])), s.weight('bias', floats([12], 2))],
    { num_heads: attr.int(2) },
    { domain: 'com.microsoft', outputs: ['layer.0.attention.self/y'] },
  );
  return s.output(y, [2, 3, 4]).model;
}

const plan = (model: Model, method: Method, targets = ['fc']) =>
  planInsert(model, [{ method, targeting: { targets } }]);

async function derivedNumbers(model: Model, method: Method, targets = ['fc']): Promise<number[]> {
  const values = await deriveValues(plan(model, method, targets), 3);
  const [tensor] = values.values();
  return Array.from(numbersOf({ ...tensor!, data: tensor!.data.read(0, tensor!.data.byteLength) }));
}

describe('derived values', () => {
  const whole = (inDim: number, outDim: number) => [inDim, outDim];

  test('see weights as [in, out], times the factor of the op', async () => {
    expect(await derivedNumbers(gemm(), starting(whole, baseValue('w')))).toEqual(SEEN.map(Math.fround));
    expect(await derivedNumbers(gemm({ factor: 0.5 }), starting(whole, baseValue('w')))).toEqual(
      SEEN.map((v) => Math.fround(v / 2)),
    );
    const bias = starting((_in, outDim) => [outDim], baseValue('b'));
    expect(await derivedNumbers(gemm(), bias)).toEqual([0.5, -4]);
  });

  test('keep the digits of float64 and come in the dtype of the site', async () => {
    expect(await derivedNumbers(gemm({ dtype: 'float64' }), starting(whole, baseValue('w')))).toEqual(SEEN);
    const values = await deriveValues(plan(gemm({ dtype: 'float16' }), starting(whole, baseValue('w'))), 0);
    expect([...values.values()][0]?.dtype).toBe('float16');
  });

  test('of a part of a packed weight are those of its columns', async () => {
    const [all] = packed().graph.initializers;
    const numbers = Array.from(numbersOf({ ...all!.tensor!, data: all!.tensor!.data.read(0, 4 * 48) }));
    const expected = [0, 1, 2, 3].flatMap((row) => numbers.slice(row * 12 + 4, row * 12 + 8));
    expect(await derivedNumbers(packed(), starting(whole, baseValue('w')), ['self.key'])).toEqual(expected);
  });

  test('may be any formula, and may pass through the host', async () => {
    const norms = derived((op, { w }) => op.ReduceL2(w, [0], { keepdims: 0 }));
    const [a, b] = await derivedNumbers(
      gemm(),
      starting((_in, out) => [out], norms),
    );
    expect(a).toBeCloseTo(Math.hypot(1, -2, 3), 5);
    expect(b).toBeCloseTo(Math.hypot(0.25, 8, 1 / 3), 5);

    let seen: HostArray | undefined;
    const reversed = derived(
      (_op, { w }) => w,
      (input) => {
        seen = input;
        return input.data.toReversed();
      },
    );
    expect(await derivedNumbers(gemm(), starting(whole, reversed))).toEqual(
      SEEN.map(Math.fround).toReversed(),
    );
    expect(seen?.dims).toEqual([3, 2]);
  });

  test('have a random stream of the seed and the key', async () => {
    const drawn: number[][] = [];
    const init = derived((_op, { w }, random) => {
      drawn.push([random(), random()]);
      return w;
    });
    const method = starting(whole, init);
    for (const seed of [1, 1, 2]) await deriveValues(plan(gemm(), method), seed);
    expect(drawn[1]).toEqual(drawn[0]);
    expect(drawn[2]).not.toEqual(drawn[0]);
  });

  test('of another size than the parameter are an error with the key', async () => {
    await expect(
      derivedNumbers(
        gemm(),
        starting((_in, out) => [out], baseValue('w')),
      ),
    ).rejects.toMatchObject({
      code: 'E_TYPE',
      where: 'fc.p',
    });
  });

  test('are refused where the weight is quantised', async () => {
    const s = new Sketch();
    const x = s.input('x', [4, 3]);
    const w = s.weight('fc.weight', tensorOfBytes('int8', [3, 2], new Uint8Array([1, 2, 3, 4, 5, 6])));
    const y = s.node('MatMul', [x, s.node('DequantizeLinear', [w, s.weight('scale', floats([]))])]);
    const model = s.output(y, [4, 2]).model;
    await expect(derivedNumbers(model, starting(whole, baseValue('w')))).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      where: 'fc.p',
    });
  });

  test('need the insertion that reads weights', () => {
    const options = { method: starting(whole, baseValue('w')), targeting: { targets: ['fc'] } };
    expect(() => insertPass(gemm(), options)).toThrowError(/comes from the base's weights/);
  });
});

describe('surveys', () => {
  /** All numbers that a survey reads of a slot. */
  async function read(model: Model, slot: 'w' | 'b', targets = ['fc']): Promise<number[]> {
    const numbers: number[] = [];
    const method = surveying(async (sites) => {
      for (const site of sites) for await (const block of site.read(slot)) numbers.push(...block);
      return new Map();
    });
    await surveyed(plan(model, method, targets));
    return numbers;
  }

  test('read the numbers that formulas see, in any order', async () => {
    const sorted = (data: readonly number[]) => [...data].sort((a, b) => a - b);
    expect(sorted(await read(gemm(), 'w'))).toEqual(sorted(SEEN.map(Math.fround)));
    expect(sorted(await read(gemm({ factor: -0.5 }), 'w'))).toEqual(
      sorted(SEEN.map((v) => Math.fround(v * -0.5))),
    );
    expect(sorted(await read(gemm({ dtype: 'float16' }), 'b'))).toEqual([-4, 0.5]);
    expect(await read(packed(), 'w', ['self.value'])).toHaveLength(16);
  });

  test('read large tensors in blocks, every number once', async () => {
    const s = new Sketch();
    const x = s.input('x', [1, 1500]);
    const count = 1500 * 1000;
    const data = Float32Array.from({ length: count }, (_, i) => i);
    const w = s.weight('fc.weight', tensorOfBytes('float32', [1500, 1000], new Uint8Array(data.buffer)));
    const model = s.output(s.node('MatMul', [x, w]), [1, 1000]).model;
    const blocks: number[] = [];
    let next = 0;
    const method = surveying(async (sites) => {
      for (const site of sites)
        for await (const block of site.read('w')) {
          blocks.push(block.length);
          for (const value of block) if (value === next) next++;
        }
      return new Map();
    });
    await surveyed(plan(model, method));
    expect(next).toBe(count);
    expect(blocks.length).toBeGreaterThan(1);
  });

  test('give facts to the configuration, arrays to transforms, and leave sites out', async () => {
    const two = () => {
      const s = new Sketch();
      const x = s.input('x', [4, 3]);
      const y = s.node('MatMul', [x, s.weight('a.weight', floats([3, 3], 1))]);
      return s.output(s.node('MatMul', [y, s.weight('b.weight', floats([3, 2], 2))]), [4, 2]).model;
    };
    const results = new Map<string, SurveyResult>([
      ['a', { skip: 'it is the first' }],
      ['b', { facts: { seen: 7 }, arrays: { order: BigInt64Array.of(2n, 0n) } }],
    ]);
    const method: Method = {
      ...starting(
        () => [2],
        derived(
          (_op, { w }) => w,
          ({ data }, { order }) => Float64Array.from(order!, (i) => data[Number(i)]!),
        ),
      ),
      survey: async () => results,
    };
    const model = two();
    const report = await insert(model, { method, targeting: { targets: ['a', 'b'] } });
    expect(report.skipped).toEqual([{ path: 'a', method: 'starting', reason: 'it is the first' }]);
    expect(report.record.sites).toMatchObject([{ path: 'b', config: { seen: 7 } }]);
    const weight = Array.from(
      numbersOf({ dtype: 'float32', dims: [6], data: floats([3, 2], 2).data.read(0, 24) }),
    );
    expect(await derivedNumbersOf(model, 'b.p')).toEqual([weight[2], weight[0]]);

    results.set('b', { skip: 'it is the second' });
    await expect(insert(two(), { method, targeting: { targets: ['a', 'b'] } })).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
      message: expect.stringContaining('it is the first'),
    });
  });
});

async function derivedNumbersOf(model: Model, name: string): Promise<number[]> {
  const { tensor } = [...model.graph.initializers].find((value) => value.name === name)!;
  return Array.from(numbersOf({ ...tensor!, data: tensor!.data.read(0, tensor!.data.byteLength) }));
}
