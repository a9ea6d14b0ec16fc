import { z } from 'zod';
import { fail } from '../../src/errors.js';
import type { Node, Value } from '../../src/graph.js';
import { isFloat } from '../../src/types.js';
import { dtypeOf } from '../../src/value-type.js';
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

/** Ops that hand on the numbers of their input in its shape. */
const SAME: ReadonlySet<string> = new Set(['Identity', 'Cast']);
/** Ops behind which probabilities are probabilities still. */
const REARRANGED: ReadonlySet<string> = new Set([
  'Reshape',
  'Squeeze',
  'Unsqueeze',
  'Flatten',
  'Transpose',
  'Clip',
]);

/** The scores that a Sigmoid makes probabilities of; the value itself where there is none. */
function beforeSigmoid(value: Value): Value {
  let rearranged: Node | undefined;
  let at = value;
  for (let node = at.producer; node !== undefined && node.domain === ''; node = at.producer) {
    if (node.op === 'Sigmoid') return rearranged === undefined ? node.input(0) : refuse(node, rearranged);
    if (REARRANGED.has(node.op)) rearranged = node;
    else if (!SAME.has(node.op)) break;
    at = node.input(0);
    if (!isFloat(dtypeOf(at) ?? 'float32')) break;
  }
  return value;
}

function refuse(sigmoid: Node, behind: Node): never {
  return fail('E_UNSUPPORTED', {
    message: `The output holds probabilities, and bce-with-logits reads scores: between it and its Sigmoid there is ${behind.op}`,
    where: sigmoid.label,
    remedy:
      'Export the model with its scores as an output, or say that these are scores: --loss-set input=logits',
  });
}
