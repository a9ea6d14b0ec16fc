/** Evaluation in blocks: the cut of a formula, and that rows computed one by one are the rows of the whole. */
import { describe, expect, test } from 'vitest';
import { blockAxes } from '../../passes/fold/blocks.js';
import { FormulaEvaluator } from '../../runtime/fold/evaluator.js';
import { FoldedData } from '../../runtime/fold/folded-tensor.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { Value } from '../../src/graph.js';
import { initTensor, normal } from '../../src/initializer.js';
import type { Model } from '../../src/model.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { formulaOf, trainedParam } from '../helpers/formulas.js';

/** A formula over `w` [6, 4] (stored), `A` [4, 2] and `B` [2, 6] as methods see them. */
const formula = (build: (op: Ops, w: Value, A: Value, B: Value) => Value): Model =>
  formulaOf({ w: [6, 4], A: [4, 2], B: [2, 6] }, (op, { w, A, B }) => build(op, w, A, B));

const axesOf = (model: Model) => Object.fromEntries(blockAxes(model) ?? [['none', -1]]);

describe('block axes', () => {
  test('a low-rank update of a weight stored as [out, in] cuts the columns of B', () => {
    const model = formula((op, w, A, B) => {
      const matrix = op.Transpose(w, { perm: [1, 0] });
      return op.Transpose(op.Add(matrix, op.Mul(op.MatMul(A, B), 0.5)), { perm: [1, 0] });
    });
    expect(axesOf(model)).toEqual({ w: 0, B: 1 });
  });

  test('a low-rank update of a weight stored as [in, out] cuts the rows of the left factor', () => {
    const model = formula((op, w, A, B) =>
      op.Add(w, op.MatMul(op.Transpose(B, { perm: [1, 0] }), op.Transpose(A, { perm: [1, 0] }))),
    );
    expect(axesOf(model)).toEqual({ w: 0, B: 1 });
  });

  test('a factor that repeats along the rows is needed whole', () => {
    const model = formula((op, w, A) => op.Mul(w, op.ReduceSum(A, [1], { keepdims: false })));
    expect(axesOf(model)).toEqual({ w: 0 });
  });

  test('a norm over the rows needs the whole weight, so there are no blocks', () => {
    const model = formula((op, w) => op.Div(w, op.ReduceL2(w, [0], { keepdims: true })));
    expect(blockAxes(model)).toBeUndefined();
  });

  test.each([0, -2])('parts joined along the rows (axis %i) make no blocks', (axis) => {
    const model = formula((op, w) =>
      op.Concat([op.Slice(w, [3], [6], [0]), op.Slice(w, [0], [3], [0])], { axis }),
    );
    expect(blockAxes(model)).toBeUndefined();
    const joined = formula((op, w) => op.Concat([op.Neg(w), w], { axis }));
    expect(blockAxes(joined)).toBeUndefined();
  });

  test('an operator without an entry means no blocks', () => {
    expect(blockAxes(formula((op, w) => op.CumSum(w, 0)))).toBeUndefined();
  });
});

describe('a folded weight', () => {
  test('is the same in blocks of rows as in one piece', async () => {
    // Tall enough for several blocks: 2¹⁸ elements each.
    const [rows, columns, rank] = [5000, 1024, 3];
    const random = (name: string, dims: readonly number[]) => initTensor(normal(1), 'float32', dims, 1, name);
    const w = random('w', [rows, columns]);
    const tensors = new Map([
      ['A', random('A', [columns, rank])],
      ['B', random('B', [rank, rows])],
    ]);
    const shapes = { w: ['rows', columns], A: [columns, rank], B: [rank, 'rows'] };
    const model = formulaOf(shapes, (op, { w, A, B }) => {
      const matrix = op.Transpose(w, { perm: [1, 0] });
      // Not linear in the factors' product, so that the runtime computes it.
      const delta = op.Tanh(op.MatMul(A, B));
      return op.Transpose(op.Add(matrix, op.Mul(delta, 0.7)), { perm: [1, 0] });
    });
    const task = {
      target: new Value({ name: 'weight' }),
      sites: ['layer'],
      formula: model,
      inputs: new Map([
        ['A', { param: trainedParam('A', [columns, rank]) }],
        ['B', { param: trainedParam('B', [rank, rows]) }],
      ]),
    };
    const evaluator = new FormulaEvaluator();
    try {
      const whole = new FoldedData({ ...task, blocks: undefined }, w, tensors, evaluator, 'float32');
      const blocked = new FoldedData(
        {
          ...task,
          blocks: new Map([
            ['w', 0],
            ['B', 1],
          ]),
        },
        w,
        tensors,
        evaluator,
        'float32',
      );
      let pieces = 0;
      for await (const _ of blocked.stream()) pieces++;
      expect(pieces).toBeGreaterThan(1);
      const expected = numbersOf(await loadTensor({ dtype: 'float32', dims: [rows, columns], data: whole }));
      const actual = numbersOf(await loadTensor({ dtype: 'float32', dims: [rows, columns], data: blocked }));
      // Kernels may sum the rank-3 products in another order for other sizes: a few units in the last place.
      let scale = 0;
      let worst = 0;
      for (let i = 0; i < expected.length; i++) {
        scale = Math.max(scale, Math.abs(expected[i]!));
        worst = Math.max(worst, Math.abs(expected[i]! - actual[i]!));
      }
      expect(worst).toBeLessThanOrEqual(4 * 2 ** -24 * scale);
      const original = numbersOf(await loadTensor(w));
      expect(actual.some((value, i) => Math.abs(value - original[i]!) > 0.1)).toBe(true);
      expect(blocked.fidelity?.relativeUpdate).toBeCloseTo(whole.fidelity?.relativeUpdate ?? 0, 6);
    } finally {
      await evaluator.close();
    }
  });
});
