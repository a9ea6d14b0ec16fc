import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { castTo, defineLoss, floatTensor, lossDtype, sizeOf, targetShape, vector } from './loss.js';

/**
 * Binary cross-entropy of scores x against targets t in [0, 1], as `torch.nn.BCEWithLogitsLoss`:
 * (1 − t)·x + (1 + (w − 1)·t)·softplus(−x) with w the weight of positives. A last axis of 1 is dropped in the target.
 */
export const bceWithLogits = defineLoss({
  id: 'bce-with-logits',
  summary: 'Binary cross-entropy on scores, for multi-label classification and masks',
  config: z.strictObject({
    output: z.string().optional(),
    labels: z.string().default('labels'),
    /** What the output holds; `auto`: scores, or probabilities where a Sigmoid makes them, which is then read before it. */
    input: z.enum(['auto', 'logits']).default('auto'),
    /** One factor per label on the positive term. */
    positiveWeights: z.array(z.number().min(0)).min(1).optional(),
  }),
  build(context, { output, labels, input, positiveWeights }) {
    const { b } = context;
    const { op } = b;
    const found = context.output(output);
    const scores = input === 'auto' ? beforeSigmoid(found) : found;
    const { dtype: stored, shape } = floatTensor(scores, 'bce-with-logits', 0);
    const dtype = lossDtype(stored);
    const target = targetShape(shape);
    const label = castTo(b, context.label({ name: labels, dtype: 'float32', shape: target }), dtype);
    const t = target.length === shape.length ? label : op.Unsqueeze(label, [-1]);
    const x = castTo(b, scores, dtype);
    const minusX = op.Neg(x);
    const negative = op.Sub(1, t);
    const positive =
      positiveWeights === undefined
        ? undefined
        : op.Add(
            op.Mul(
              t,
              vector(
                b,
                positiveWeights.map((w) => w - 1),
                dtype,
              ),
            ),
            1,
          );
    const softplus = op.Softplus(minusX);
    const loss = op.Add(op.Mul(negative, x), positive === undefined ? softplus : op.Mul(positive, softplus));
    return {
      total: op.ReduceSum(loss, { keepdims: 0 }),
      weight: sizeOf(b, x, dtype),
      gradient(scale) {
        const s = op.Sigmoid(minusX);
        const d = op.Sub(negative, positive === undefined ? s : op.Mul(positive, s));
        return { of: scores, value: castTo(b, op.Mul(d, scale), stored) };
      },
    };
  },
});

/** The scores that a Sigmoid makes probabilities of; the value itself where there is none. */
function beforeSigmoid(value: Value): Value {
  const node = value.producer;
  return node?.domain === '' && node.op === 'Sigmoid' ? node.input(0) : value;
}
