/** Folds whose writer is slow: what is on its way to the disk stays as it is, and little of it is in memory. */
import { expect, test } from 'vitest';
import type { FoldTask } from '../../passes/fold/plan.js';
import { FormulaEvaluator } from '../../runtime/fold/evaluator.js';
import { FoldedData } from '../../runtime/fold/folded-tensor.js';
import { factorsOf } from '../../runtime/fold/low-rank/split.js';
import { Value } from '../../src/graph.js';
import { initTensor, normal } from '../../src/initializer.js';
import type { Model } from '../../src/model.js';
import type { Sink } from '../../src/onnx/atomic.js';
import { pump } from '../../src/onnx/pump.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { TensorData } from '../../src/tensor.js';
import { formulaOf, trainedParam } from '../helpers/formulas.js';

/** Eight blocks. */
const [ROWS, COLUMNS, RANK] = [2048, 1024, 2];

type Combine = (op: Ops, w: Value, update: Value) => Value;

/** A formula of any number of rows of `w` and `A`. */
const formula = (combine: Combine): Model =>
  formulaOf({ w: ['rows', COLUMNS], A: ['rows', RANK], B: [RANK, COLUMNS] }, (op, { w, A, B }) =>
    combine(op, w, op.MatMul(A, B)),
  );

function foldedBy(combine: Combine, evaluator: FormulaEvaluator) {
  const tensor = (key: string, dims: readonly number[], seed: number) =>
    initTensor(normal(1), 'float32', dims, seed, key);
  const shapes = { A: [ROWS, RANK], B: [RANK, COLUMNS] };
  const task: FoldTask = {
    target: new Value({ name: 'weight' }),
    sites: ['layer'],
    formula: formula(combine),
    inputs: new Map(Object.entries(shapes).map(([key, shape]) => [key, { param: trainedParam(key, shape) }])),
    blocks: new Map(Object.entries({ w: 0, A: 0 })),
  };
  return (seed: number): FoldedData => {
    const params = new Map(Object.entries(shapes).map(([key, dims]) => [key, tensor(key, dims, seed)]));
    return new FoldedData(task, tensor('w', [ROWS, COLUMNS], seed), params, evaluator, 'float32');
  };
}

/** Looks at the bytes of a write when it is about to be over, some time after the one before it was. */
class SlowSink implements Sink {
  position = 0;
  readonly written: Buffer[] = [];
  #last: Promise<void> = Promise.resolve();

  write(bytes: Uint8Array): Promise<void> {
    this.position += bytes.length;
    this.#last = this.#last
      .then(() => new Promise((resolve) => setTimeout(resolve, 10)))
      .then(() => void this.written.push(Buffer.from(bytes)));
    return this.#last;
  }
}

const sum: Combine = (op, w, update) => op.Add(w, update);
/** Not linear in the product. */
const bounded: Combine = (op, w, update) => op.Add(w, op.Tanh(update));

async function written(payloads: readonly TensorData[]): Promise<Buffer> {
  const sink = new SlowSink();
  await pump(
    payloads.map((data) => ({ kind: 'data', data })),
    sink,
  );
  return Buffer.concat(sink.written);
}

test.each([
  { by: 'the kernel of low rank', combine: sum, lowRank: true },
  { by: 'the runtime', combine: bounded, lowRank: false },
])('blocks by $by are not overwritten before they are on the disk', async ({ combine, lowRank }) => {
  expect(factorsOf(formula(combine)) !== undefined).toBe(lowRank);
  const evaluator = new FormulaEvaluator();
  try {
    const folded = foldedBy(combine, evaluator);
    const expected = Buffer.concat([await folded(1).bytes(), await folded(2).bytes()]);
    expect(Buffer.compare(await written([folded(1), folded(2)]), expected)).toBe(0);
  } finally {
    await evaluator.close();
  }
});

test('nor by blocks of a weight that is made whole before it is written, as quantised ones are', async () => {
  const evaluator = new FormulaEvaluator();
  try {
    const folded = foldedBy(sum, evaluator);
    const expected = Buffer.concat([await folded(1).bytes(), await folded(2).bytes()]);
    const whole: TensorData = {
      byteLength: 4 * ROWS * COLUMNS,
      read: () => new Uint8Array(),
      async *stream() {
        yield await folded(2).bytes();
      },
    };
    expect(Buffer.compare(await written([folded(1), whole]), expected)).toBe(0);
  } finally {
    await evaluator.close();
  }
});

test('of weights that are computed whole, one is written while one more is made', async () => {
  const byteLength = 9 << 20;
  const sink = new SlowSink();
  let made = 0;
  let most = 0;
  const weight: TensorData = {
    byteLength,
    read: () => new Uint8Array(),
    async *stream() {
      made++;
      most = Math.max(most, made - sink.written.length);
      yield new Uint8Array(byteLength).fill(made);
    },
  };
  await pump(
    Array.from({ length: 6 }, () => ({ kind: 'data', data: weight })),
    sink,
  );
  expect(sink.written.map((bytes) => bytes[byteLength - 1])).toEqual([1, 2, 3, 4, 5, 6]);
  expect(most).toBe(2);
});
