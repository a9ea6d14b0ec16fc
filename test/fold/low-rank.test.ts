/** Updates of low rank: the kernel against plain arithmetic, what is taken for one, and folds that go through it. */
import { mkdtempSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest';
import type { FoldTask } from '../../passes/fold/plan.js';
import { FormulaEvaluator } from '../../runtime/fold/evaluator.js';
import { FoldedData } from '../../runtime/fold/folded-tensor.js';
import { evaluateHere } from '../../runtime/fold/low-rank/evaluate.js';
import { type Factors, LowRankKernel } from '../../runtime/fold/low-rank/kernel.js';
import { factorsOf } from '../../runtime/fold/low-rank/split.js';
import type { KernelDType } from '../../runtime/fold/low-rank/storage.js';
import type { ComputeDType } from '../../runtime/fold/weight.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { Value } from '../../src/graph.js';
import { narrow, widen } from '../../src/halves.js';
import { initTensor, normal } from '../../src/initializer.js';
import { tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { FileData } from '../../src/onnx/payload.js';
import { FileSource } from '../../src/onnx/source.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { BytesData, type Tensor, type TensorData } from '../../src/tensor.js';
import { formulaOf, trainedParam } from '../helpers/formulas.js';

const EPSILON = 2 ** -24;

function random(key: string, dims: readonly number[]): Float32Array {
  return numbersOf({
    dtype: 'float32',
    dims,
    data: initTensor(normal(1), 'float32', dims, 7, key).data.read(0, 4 * dims.reduce((a, b) => a * b, 1)),
  }) as Float32Array;
}

function factors(rows: number, columns: number, rank: number): Factors {
  const left = random('left', [rank, rows]);
  // A row that changes nothing, so that unchanged elements are counted too.
  for (let r = 0; r < rank; r++) left[r * rows] = 0;
  return { left, right: random('right', [rank, columns]), rank, rows, columns };
}

async function update(
  kernel: LowRankKernel,
  given: Factors,
  data: TensorData,
  row: number,
  count: number,
  dtype: KernelDType = 'float32',
) {
  const factors = kernel.load(given);
  const { bytes, sums, free } = await kernel.update(factors, { dtype, data }, { row, count });
  const { buffer } = bytes.slice();
  free();
  factors.free();
  return { sums, numbers: new Float32Array(dtype === 'float32' ? buffer : new ArrayBuffer(0)), buffer };
}

/** Codes of finite numbers without sign. */
const FINITE_CODES = { float16: 0x7c00, bfloat16: 0x7f80 };

function bytesOf(numbers: Float32Array | Uint16Array): BytesData {
  return new BytesData(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength));
}

/** Rows of a weight from one of them to the last, and factors of its update. */
const updates = fc
  .record({
    rows: fc.integer({ min: 1, max: 21 }),
    columns: fc.integer({ min: 1, max: 21 }),
    rank: fc.integer({ min: 1, max: 9 }),
    seed: fc.nat(),
  })
  .map(({ rows, columns, rank, seed }) => {
    const row = seed % rows;
    return { rows, columns, rank, row, count: rows - row, given: factors(rows, columns, rank) };
  });

describe('the kernel', () => {
  const kernel = LowRankKernel.create() as LowRankKernel;
  afterEach(() => void vi.unstubAllGlobals());
  afterAll(() => kernel.close());

  test('adds the product to rows of any shape, wherever they begin, and measures what it did', async () => {
    await fc.assert(
      fc.asyncProperty(updates, async ({ rows, columns, rank, row, count, given }) => {
        const w = random('w', [rows, columns]);
        const { sums, numbers } = await update(kernel, given, bytesOf(w), row, count);
        let [base, delta, unchanged] = [0, 0, 0];
        for (let i = 0; i < count; i++)
          for (let c = 0; c < columns; c++) {
            const before = w[(row + i) * columns + c]!;
            let exact = before;
            let size = Math.abs(before);
            for (let r = 0; r < rank; r++) {
              const product = given.left[r * rows + row + i]! * given.right[r * columns + c]!;
              exact += product;
              size += Math.abs(product);
            }
            const after = numbers[i * columns + c]!;
            // Each of rank + 1 additions and rank products rounds once.
            expect(Math.abs(after - exact)).toBeLessThanOrEqual(2 * (rank + 1) * EPSILON * size);
            base += before ** 2;
            delta += (after - before) ** 2;
            if (after === before) unchanged++;
          }
        expect(sums.unchanged).toBe(unchanged);
        // Eight squares of a tile are added in float32, and tiles in float64.
        expect(Math.abs(sums.base - base)).toBeLessThanOrEqual(16 * EPSILON * base);
        expect(Math.abs(sums.delta - delta)).toBeLessThanOrEqual(16 * EPSILON * delta);
      }),
      { seed: 3, numRuns: 60 },
    );
  });

  describe.each(['float16', 'bfloat16'] as const)('in %s', (dtype) => {
    const same = (codes: Uint16Array, expected: Uint16Array) => {
      // One code of a NaN is as good as another.
      const canonical = (all: Uint16Array) =>
        Buffer.from(
          narrow(
            dtype,
            widen(dtype, all).map((number) => (Number.isNaN(number) ? Number.NaN : number)),
          ).buffer,
        );
      expect(Buffer.compare(canonical(codes), canonical(expected))).toBe(0);
    };

    test('rounds what it gives in float32, and measures what that loses', async () => {
      await fc.assert(
        fc.asyncProperty(updates, async ({ rows, columns, row, count, given }) => {
          const codes = narrow(dtype, random('w', [rows, columns]));
          const w = widen(dtype, codes);
          const exact = await update(kernel, given, bytesOf(w), row, count);
          const rounded = await update(kernel, given, bytesOf(codes), row, count, dtype);
          const stored = new Uint16Array(rounded.buffer);
          same(stored, narrow(dtype, exact.numbers));
          const numbers = widen(dtype, stored);
          const lost = numbers.reduce((sum, number, i) => sum + (number - exact.numbers[i]!) ** 2, 0);
          expect(Math.abs(rounded.sums.lost - lost)).toBeLessThanOrEqual(16 * EPSILON * lost);
          expect(rounded.sums).toMatchObject({
            base: exact.sums.base,
            delta: exact.sums.delta,
            unchanged: numbers.filter((number, i) => number === w[row * columns + i]).length,
          });
        }),
        { seed: 4, numRuns: 60 },
      );
    });

    test('knows every code', async () => {
      const codes = Uint16Array.from({ length: 1 << 16 }, (_, code) => code);
      const none = {
        left: new Float32Array(256),
        right: new Float32Array(256),
        rank: 1,
        rows: 256,
        columns: 256,
      };
      const { buffer } = await update(kernel, none, bytesOf(codes), 0, 256, dtype);
      // A sum with zero has no negative zero.
      same(new Uint16Array(buffer), codes.with(0x8000, 0));
    });

    test('rounds to nearest, ties to even, from the smallest numbers to the largest', async () => {
      const [rows, columns] = [64, 1024];
      const finite = FINITE_CODES[dtype];
      const left = Float32Array.from({ length: rows }, () => 1);
      const right = Float32Array.from({ length: columns }, (_, i) => {
        const low = Math.floor((i / columns) * finite);
        const [below, above] = widen(dtype, Uint16Array.of(low, low + 1)) as unknown as [number, number];
        const step = Number.isFinite(above) ? above - below : below * 2 ** -8;
        const sign = i % 3 === 0 ? -1 : 1;
        return sign * (below + step * ([0.25, 0.5, 0.75, 0.4999999, 0.5000001][i % 5] as number));
      });
      // Past the largest number: what rounds to it, and what does not.
      right.set([65519, 65520, -65536, 3.4e38, Number.POSITIVE_INFINITY, Number.NaN, 2 ** -25, 2 ** -149]);
      const zeros = bytesOf(new Uint16Array(rows * columns));
      const { buffer } = await update(kernel, { left, right, rank: 1, rows, columns }, zeros, 0, 1, dtype);
      same(
        new Uint16Array(buffer),
        narrow(
          dtype,
          right.map((number) => 0 + number),
        ),
      );
    });
  });

  test('is left out where Node.js has no vectors', () => {
    vi.stubGlobal('WebAssembly', undefined);
    expect(LowRankKernel.create()).toBeUndefined();
    vi.stubGlobal('WebAssembly', { validate: () => false });
    expect(LowRankKernel.create()).toBeUndefined();
  });

  test('is left out where the system does not give the room for its memory', () => {
    class Memory {
      constructor() {
        throw new RangeError('could not allocate memory');
      }
    }
    vi.stubGlobal('WebAssembly', { validate: () => true, Module: class {}, Memory });
    expect(LowRankKernel.create()).toBeUndefined();
  });

  test('turns from one update to another and back, in memory that grows and goes round', async () => {
    const [one, other] = [factors(6, 10, 2), factors(400, 700, 5)];
    const w = random('w', [400, 700]);
    const first = (await update(kernel, one, bytesOf(w), 2, 3)).numbers;
    const held = await kernel.update(
      kernel.load(other),
      { dtype: 'float32', data: bytesOf(w) },
      { row: 0, count: 400 },
    );
    const before = held.bytes.slice();
    for (const count of [1, 4, 3])
      expect((await update(kernel, one, bytesOf(w), 2, count)).numbers.slice(0, 10)).toEqual(
        first.slice(0, 10),
      );
    expect(Buffer.compare(held.bytes, before)).toBe(0);
    expect(first).not.toEqual(w.slice(20, 50));
  });

  test('reads rows from the file of a weight, and says what is wrong with one', async () => {
    const given = factors(40, 70, 5);
    const w = random('w', [40, 70]);
    const path = join(mkdtempSync(join(tmpdir(), 'low-rank-')), 'weights');
    writeFileSync(path, Buffer.concat([Buffer.alloc(12), Buffer.from(w.buffer, w.byteOffset, w.byteLength)]));
    const stored = () => new FileData(new FileSource(path), 12, w.byteLength);
    expect(await update(kernel, given, stored(), 3, 30)).toEqual(
      await update(kernel, given, bytesOf(w), 3, 30),
    );
    const data = stored();
    truncateSync(path, 12);
    await expect(update(kernel, given, data, 3, 30)).rejects.toMatchObject({
      code: 'E_IO',
      message: expect.stringContaining('shorter'),
    });
  });

  test('a thread that is gone is an error, not a wait', async () => {
    const closed = LowRankKernel.create() as LowRankKernel;
    const w = bytesOf(random('w', [6, 10]));
    const gone = { code: 'E_RUNTIME', message: expect.stringContaining('closed') };
    const waiting = expect(update(closed, factors(6, 10, 2), w, 0, 6)).rejects.toMatchObject(gone);
    await closed.close();
    await waiting;
    await expect(update(closed, factors(6, 10, 2), w, 0, 6)).rejects.toMatchObject(gone);
  });
});

type Build = (op: Ops, w: Value, A: Value, B: Value) => Value;

/** A formula over `w` [6, 4], A [6, 2] and B [2, 4], which are called as some methods call theirs. */
function formulaOfUpdate(
  build: Build,
  dims: readonly number[] = [6, 4],
  dtype: ComputeDType = 'float32',
): Model {
  const [rows = 1, columns = 1] = dims;
  const shapes = { w: dims, left: [rows, 2], right: [2, columns] };
  return formulaOf(shapes, (op, { w, left, right }) => build(op, w, left, right), dtype);
}

const turn = (op: Ops, value: Value): Value => op.Transpose(value, { perm: [1, 0] });

const UPDATES: Readonly<Record<string, Build>> = {
  plain: (op, w, A, B) => op.Add(w, op.MatMul(A, B)),
  'the weight on the right': (op, w, A, B) => op.Add(op.MatMul(A, B), w),
  'scaled behind the product': (op, w, A, B) => op.Add(w, op.Mul(op.Mul(op.MatMul(A, B), 0.3), 5)),
  'in the other layout': (op, w, A, B) =>
    turn(op, op.Add(turn(op, w), op.Mul(op.MatMul(turn(op, B), turn(op, A)), -0.7))),
  'a part of the weight taken out': (op, w, A, B) =>
    op.Add(w, op.Sub(op.MatMul(A, B), op.Mul(op.MatMul(op.Tanh(A), B), 0.4))),
  // Its factors do not have the rows of the weight, so that the runtime adds it after all.
  'a product of one row': (op, w, A, B) => op.Add(w, op.MatMul(op.Slice(A, [0], [1], [0]), B)),
  'two products': (op, w, A, B) =>
    op.Add(op.Sub(w, op.MatMul(op.Mul(A, 0.3), B)), op.Mul(op.MatMul(A, op.Neg(B)), 1.7)),
  'two of them, one computed': (op, w, A, B) =>
    op.Add(op.Add(w, op.MatMul(A, B)), op.Mul(op.MatMul(op.Tanh(A), op.Neg(B)), 2)),
};

const OTHERS: Readonly<Record<string, Build>> = {
  'a weight that is scaled': (op, w, A, B) => op.Mul(op.Add(w, op.MatMul(A, B)), 2),
  'a weight that counts twice': (op, w, A, B) => op.Add(op.Add(w, w), op.MatMul(A, B)),
  'a factor that reads the weight': (op, w, A, B) => op.Add(w, op.MatMul(op.Mul(A, op.ReduceSum(w)), B)),
  'a product of elements': (op, w, A, B) => op.Mul(w, op.MatMul(A, B)),
  'a sum with the weight turned around': (op, w, A, B) =>
    op.Add(turn(op, w), op.MatMul(turn(op, B), turn(op, A))),
  'the weight subtracted': (op, w, A, B) => op.Sub(op.MatMul(A, B), w),
  'a product of a vector': (op, w, A, B) => op.Add(w, op.MatMul(op.ReduceSum(A, [0], { keepdims: 0 }), B)),
  'nothing added': (op, w) => op.Identity(w),
};

function foldOf(build: Build, evaluator: FormulaEvaluator, w: Tensor, tensors: ReadonlyMap<string, Tensor>) {
  const data = (dtype: ComputeDType) => {
    const task: FoldTask = {
      target: new Value({ name: 'weight' }),
      sites: ['layer'],
      formula: formulaOfUpdate(build, w.dims, dtype),
      inputs: new Map([...tensors].map(([key, { dims }]) => [key, { param: trainedParam(key, dims) }])),
      blocks: undefined,
    };
    return new FoldedData(task, w, tensors, evaluator, dtype);
  };
  // In float64 the formula runs as it is, in ONNX Runtime.
  return { updated: data('float32'), computed: data('float64') };
}

async function collect(data: FoldedData, w: Tensor): Promise<Float32Array> {
  return numbersOf(await loadTensor({ ...w, data })) as Float32Array;
}

describe('formulas', () => {
  test.each(Object.keys(UPDATES))(
    '%s: taken for an update, and folded to what the formula gives',
    async (name) => {
      const build = UPDATES[name] as Build;
      expect(factorsOf(formulaOfUpdate(build))).toBeDefined();
      const draw = (key: string, dims: readonly number[]) => initTensor(normal(1), 'float32', dims, 3, key);
      const w = draw('w', [37, 29]);
      const tensors = new Map([
        ['left', draw('A', [37, 2])],
        ['right', draw('B', [2, 29])],
      ]);
      const evaluator = new FormulaEvaluator();
      try {
        const { updated, computed } = foldOf(build, evaluator, w, tensors);
        const [ours, theirs] = [await collect(updated, w), await collect(computed, w)];
        const scale = theirs.reduce((most, number) => Math.max(most, Math.abs(number)), 0);
        for (const [i, number] of ours.entries())
          expect(Math.abs(number - theirs[i]!)).toBeLessThanOrEqual(16 * EPSILON * scale);
        expect(ours).not.toEqual(
          await collect(new FoldedData(updated.task, w, zeros(tensors), evaluator, 'float32'), w),
        );
        const relative = computed.fidelity?.relativeUpdate ?? 0;
        expect(relative).toBeGreaterThan(0.1);
        expect(Math.abs((updated.fidelity?.relativeUpdate ?? 0) - relative)).toBeLessThan(1e-5 * relative);
      } finally {
        await evaluator.close();
      }
    },
  );

  /** Those with anything but moves and scales in their factors. */
  const COMPUTED = ['a part of the weight taken out', 'a product of one row', 'two of them, one computed'];

  test.each(Object.keys(UPDATES))('%s: factors are those of the runtime', async (name) => {
    const formula = factorsOf(formulaOfUpdate(UPDATES[name] as Build)) as Model;
    const feed = (key: string, dims: readonly number[]) =>
      loadTensor(initTensor(normal(1), 'float32', dims, 3, key));
    const feeds = new Map([
      ['left', await feed('A', [6, 2])],
      ['right', await feed('B', [2, 4])],
    ]);
    const ours = structuredClone(evaluateHere(formula, feeds));
    expect(ours === undefined).toBe(COMPUTED.includes(name));
    const evaluator = new FormulaEvaluator();
    try {
      const theirs = await evaluator.runAll(formula, Object.fromEntries(feeds));
      if (ours !== undefined) expect(ours).toEqual(theirs);
    } finally {
      await evaluator.close();
    }
  });

  test.each([
    ['a row of more than a block', [5, 700_000]],
    ['fewer rows than a tile', [3, 90_001]],
    ['one column', [70_000, 1]],
  ] as const)('of weights with %s', async (_what, dims) => {
    const draw = (key: string, shape: readonly number[]) => initTensor(normal(1), 'float32', shape, 5, key);
    const w = draw('w', dims);
    const tensors = new Map([
      ['left', draw('A', [dims[0], 2])],
      ['right', draw('B', [2, dims[1]])],
    ]);
    const evaluator = new FormulaEvaluator();
    try {
      const { updated, computed } = foldOf(UPDATES.plain as Build, evaluator, w, tensors);
      const [ours, theirs] = [await collect(updated, w), await collect(computed, w)];
      let worst = 0;
      for (const [i, number] of ours.entries()) worst = Math.max(worst, Math.abs(number - theirs[i]!));
      const scale = theirs.reduce((most, number) => Math.max(most, Math.abs(number)), 0);
      expect(worst).toBeLessThanOrEqual(8 * EPSILON * scale);
      expect(updated.fidelity?.relativeUpdate).toBeCloseTo(computed.fidelity?.relativeUpdate ?? 0, 5);
    } finally {
      await evaluator.close();
    }
  });

  test.each(Object.keys(OTHERS))('%s: left to the runtime', (name) => {
    expect(factorsOf(formulaOfUpdate(OTHERS[name] as Build, [4, 4]))).toBeUndefined();
  });
});

function zeros(tensors: ReadonlyMap<string, Tensor>): Map<string, Tensor> {
  return new Map(
    [...tensors].map(([key, { dims }]) => [
      key,
      tensorOf('float32', dims, new Array(dims.reduce((a, b) => a * b, 1)).fill(0)),
    ]),
  );
}

describe('numbers at the edge', () => {
  const build = UPDATES.plain as Build;
  const fold = async (w: number[], A: number[], B: number[], dtype: KernelDType = 'float32') => {
    const evaluator = new FormulaEvaluator();
    try {
      const weight = tensorOf(dtype, [2, 2], w);
      const tensors = new Map([
        ['left', tensorOf('float32', [2, 2], A)],
        ['right', tensorOf('float32', [2, 2], B)],
      ]);
      const { updated } = foldOf(build, evaluator, weight, tensors);
      return { numbers: await collect(updated, weight), fidelity: updated.fidelity };
    } finally {
      await evaluator.close();
    }
  };

  test('a sum that overflows names its element', async () => {
    await expect(fold([1, 2, 3, 3e38], [0, 0, 1e20, 0], [0, 3e18, 0, 0])).rejects.toMatchObject({
      code: 'E_NON_FINITE',
      where: 'weight',
      message: expect.stringContaining('element 3'),
    });
  });

  test('so does one that float16 cannot hold', async () => {
    await expect(fold([1, 2, 3, 65504], [0, 0, 1, 0], [0, 40, 0, 0], 'float16')).rejects.toMatchObject({
      code: 'E_NON_FINITE',
      message: expect.stringMatching(/65544, which its dtype cannot hold, at element 3/),
    });
    const { numbers, fidelity } = await fold([1, 2, 3, 65504], [0, 0, 1, 0], [0, 8, 0, 0], 'float16');
    expect([...numbers]).toEqual([1, 2, 3, 65504]);
    expect(fidelity).toMatchObject({ unchanged: 1, updateError: 1 });
  });

  test('numbers whose squares overflow are measured all the same', async () => {
    const { numbers, fidelity } = await fold([1e30, 0, 0, 1e30], [1e15, 0, 0, 0], [1e15, 0, 0, 0]);
    expect([...numbers]).toEqual([Math.fround(1e30 + 1e30), 0, 0, Math.fround(1e30)]);
    expect(fidelity?.relativeUpdate).toBeCloseTo(Math.SQRT1_2, 6);
    expect(fidelity?.unchanged).toBe(0.75);
  });

  test('infinities of the base stay', async () => {
    const { numbers } = await fold([Number.NEGATIVE_INFINITY, 0, 0, 1], [1, 0, 0, 1], [1, 2, 3, 4]);
    expect([...numbers]).toEqual([Number.NEGATIVE_INFINITY, 2, 3, 5]);
  });
});
