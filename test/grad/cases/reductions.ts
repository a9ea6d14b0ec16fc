import type { Value } from '../../../src/graph.js';
import type { Builder } from '../../../src/ops/builder.js';
import { type Draw, draw, type GradientCase } from '../harness.js';

type Reduce = (b: Builder, x: Value, axes: number[] | null, attributes: { keepdims: number }) => Value;

/** Several axes, negative ones, all of them, with and without keepdims, in both opset forms. */
function reduce(
  name: string,
  build: Reduce,
  how: Draw = draw.normal,
  more: Partial<GradientCase> = {},
): GradientCase[] {
  const forms: [number[] | null, number][] = [
    [[1], 1],
    [[-1], 0],
    [[0, 2], 0],
    [[2, 0], 1],
    [null, 0],
    [null, 1],
  ];
  return [13, 21].flatMap((opset) =>
    forms.map(
      ([axes, keepdims]): GradientCase => ({
        name: `${name}-${opset} ${axes ?? 'all'} keep ${keepdims}`,
        inputs: [{ shape: [2, 3, 4], draw: how }],
        build: (b, [x]) => build(b, x!, axes, { keepdims }),
        opset,
        ...(opset < 18 && { variants: ['symbolic'] }),
        ...more,
      }),
    ),
  );
}

export const reductions: Record<string, GradientCase[]> = {
  ReduceSum: reduce('ReduceSum', (b, x, axes, a) => b.op.ReduceSum(x, axes, a)),
  ReduceMean: reduce('ReduceMean', (b, x, axes, a) => b.op.ReduceMean(x, axes, a)),
  ReduceMax: reduce('ReduceMax', (b, x, axes, a) => b.op.ReduceMax(x, axes, a), draw.distinct),
  ReduceMin: reduce('ReduceMin', (b, x, axes, a) => b.op.ReduceMin(x, axes, a), draw.distinct),
  ReduceProd: [
    ...reduce('ReduceProd', (b, x, axes, a) => b.op.ReduceProd(x, axes, a), draw.awayFromZero, {
      dtype: 'float32',
    }),
    ...reduce(
      'ReduceProd with a zero',
      (b, x, axes, a) => b.op.ReduceProd(x, axes, a),
      (random, i) => (i === 5 ? 0 * random() : 0.5 + random()),
    ),
  ],
  ReduceL1: reduce('ReduceL1', (b, x, axes, a) => b.op.ReduceL1(x, axes, a), draw.awayFromZero, {
    dtype: 'float32',
  }),
  ReduceL2: reduce('ReduceL2', (b, x, axes, a) => b.op.ReduceL2(x, axes, a), draw.normal),
  ReduceSumSquare: reduce('ReduceSumSquare', (b, x, axes, a) => b.op.ReduceSumSquare(x, axes, a)),
  ReduceLogSum: reduce('ReduceLogSum', (b, x, axes, a) => b.op.ReduceLogSum(x, axes, a), draw.positive, {
    dtype: 'float32',
  }),
  ReduceLogSumExp: reduce('ReduceLogSumExp', (b, x, axes, a) => b.op.ReduceLogSumExp(x, axes, a)),
  CumSum: [
    [0, 0],
    [1, 0],
    [0, 1],
    [1, 1],
  ].map(
    ([reverse, exclusive]): GradientCase => ({
      name: `CumSum reverse ${reverse} exclusive ${exclusive}`,
      inputs: [{ shape: [2, 3, 4] }],
      build: (b, [x]) => b.op.CumSum(x!, b.scalar(1, 'int64'), { reverse: reverse!, exclusive: exclusive! }),
    }),
  ),
};
