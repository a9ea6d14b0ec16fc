/** Random compositions: values shared between branches, factors that are put off, broadcasts, in random order. */
import { describe, expect, it } from 'vitest';
import type { Value } from '../../src/graph.js';
import { randomStream } from '../../src/initializer.js';
import type { Builder } from '../../src/ops/builder.js';
import { compare, type GradientCase } from './harness.js';

type Step = (b: Builder, x: Value, y: Value, number: number) => Value;

/** Each keeps the shape [3, 4] of its operands and stays bounded. */
const STEPS: readonly Step[] = [
  (b, x, y) => b.op.Add(x, y),
  (b, x, y) => b.op.Sub(x, y),
  (b, x, y) => b.op.Mul(x, b.op.Tanh(y)),
  (b, x, _, number) => b.op.Mul(x, number),
  (b, x, _, number) => b.op.Div(x, 1 + Math.abs(number)),
  (b, x) => b.op.Neg(x),
  (b, x) => b.op.Tanh(x),
  (b, x) => b.op.Softmax(x, { axis: 1 }),
  (b, x, y) => b.op.Sub(x, b.op.ReduceMean(y, [0], { keepdims: 1 })),
  // Not x·xᵀ: ONNX Runtime 1.30 builds an invalid graph when both operands of a product are one scaled value.
  (b, x, y) => b.op.MatMul(b.op.MatMul(x, b.op.Transpose(b.op.Tanh(x), { perm: [1, 0] })), b.op.Sigmoid(y)),
  (b, x, y) =>
    b.op.Slice(b.op.Gemm(b.op.Reshape(x, [4, 3]), b.op.Tanh(y), null, { alpha: 0.3 }), [1], [4], [0]),
  (b, x) => b.op.Transpose(b.op.Neg(b.op.Transpose(x, { perm: [1, 0] })), { perm: [1, 0] }),
  (b, x, y) => {
    const [left, right] = b.op.Split(x, [1, 3], { axis: 1 }, 2);
    return b.op.Add(b.op.Concat([right, left], { axis: 1 }), b.op.Expand(left, b.op.Shape(y)));
  },
];

function composition(seed: number): GradientCase {
  return {
    name: `composition ${seed}`,
    inputs: [{ shape: [3, 4] }, { shape: [3, 4] }, { shape: [4] }],
    build(b, inputs) {
      const random = randomStream(seed, 'composition');
      const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
      const values = [inputs[0]!, inputs[1]!, b.op.Add(inputs[2]!, inputs[1]!)];
      // Later values are likelier, so that the graph is deep, and old ones come back, so that it has many paths.
      for (let i = 0; i < 14; i++) {
        const x = random() < 0.6 ? values.at(-1)! : pick(values);
        values.push(pick(STEPS)(b, x, pick(values), 2 * random() - 1));
      }
      return [values.at(-1)!, values.at(-3)!, b.op.Mul(values[0]!, b.op.Add(values[1]!, inputs[2]!))];
    },
    variants: ['static', 'symbolic'],
  };
}

describe('random compositions', () => {
  for (let seed = 0; seed < 24; seed++)
    it(`seed ${seed}`, async () => {
      for (const result of await compare(composition(seed)))
        expect(result.error, JSON.stringify(result)).toBeLessThanOrEqual(result.tolerance);
    });
});
