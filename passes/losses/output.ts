import { z } from 'zod';
import { castTo, defineLoss, floatTensor, lossDtype, sizeOf } from './loss.js';

/** An output of the graph is the loss; its mean, where it is not a scalar. */
export const output = defineLoss({
  id: 'output',
  summary: 'An output of the graph is the loss',
  config: z.strictObject({ output: z.string().optional() }),
  build(context, { output: name }) {
    const { b } = context;
    const value = context.output(name);
    const { dtype: stored } = floatTensor(value, 'output', 0);
    const dtype = lossDtype(stored);
    const loss = castTo(b, value, dtype);
    return { total: b.op.ReduceSum(loss, { keepdims: 0 }), weight: sizeOf(b, value, dtype) };
  },
});
