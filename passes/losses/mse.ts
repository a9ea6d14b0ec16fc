import { z } from 'zod';
import { castTo, defineLoss, floatTensor, lossDtype, sizeOf, targetShape } from './loss.js';

/** Mean of (prediction − target)² over all elements, as `torch.nn.MSELoss`. A last axis of 1 is dropped in the target. */
export const mse = defineLoss({
  id: 'mse',
  summary: 'Mean squared error, for regression',
  config: z.strictObject({ output: z.string().optional(), labels: z.string().default('labels') }),
  build(context, { output, labels }) {
    const { b } = context;
    const { op } = b;
    const prediction = context.output(output);
    const { dtype: stored, shape } = floatTensor(prediction, 'mse', 0);
    const dtype = lossDtype(stored);
    const target = targetShape(shape);
    const label = castTo(b, context.label({ name: labels, dtype: 'float32', shape: target }), dtype);
    const difference = op.Sub(
      castTo(b, prediction, dtype),
      target.length === shape.length ? label : op.Unsqueeze(label, [-1]),
    );
    return {
      total: op.ReduceSum(op.Mul(difference, difference), { keepdims: 0 }),
      weight: sizeOf(b, difference, dtype),
      gradient: (scale) => ({
        of: prediction,
        value: castTo(b, op.Mul(difference, op.Mul(scale, 2)), stored),
      }),
    };
  },
});
