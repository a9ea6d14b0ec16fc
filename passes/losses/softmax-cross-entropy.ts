/**
 * Cross-entropy of class scores against class numbers, in the form both cross-entropy losses share.
 *
 * [rows, classes] tensors are what costs. With p = softmax(z) and k the largest score of a row,
 * −log p_y = z_k − z_y − log p_k needs row maxima only (p_k ≥ 1/classes, so the logarithm is safe where p_y underflows),
 * and the gradient is p scaled per row with one element per row corrected: no one-hot tensor, no log-softmax tensor.
 */
import type { Value } from '../../src/graph.js';
import type { Builder } from '../../src/ops/builder.js';
import type { DType, Shape } from '../../src/types.js';
import { type BuiltLoss, castTo, floatTensor, lossDtype, vector } from './loss.js';

export interface CrossEntropyOptions {
  readonly loss: string;
  /** Scores, [..., classes]. */
  readonly logits: Value;
  /** Class numbers, [...], any integer dtype. */
  readonly labels: Value;
  /** Rows with this label do not count. */
  readonly ignoreIndex: number;
  /** ε of label smoothing: the target is (1 − ε)·onehot + ε/classes. */
  readonly smoothing: number;
  /** One factor per class. */
  readonly classWeights?: readonly number[] | undefined;
}

export function softmaxCrossEntropy(
  b: Builder,
  options: CrossEntropyOptions,
): BuiltLoss & { correct: Value } {
  const { op } = b;
  const { logits, smoothing: epsilon, classWeights } = options;
  const { dtype: stored, shape } = floatTensor(logits, options.loss, 1);
  const dtype = lossDtype(stored);
  const z = castTo(b, logits, dtype);
  const last = { axis: -1 };
  const perRow = { keepdims: 1 };

  // [..., 1] from here on. Ignored rows read class 0 and weigh nothing.
  const labels = op.Unsqueeze(castTo(b, options.labels, 'int32'), [-1]);
  const ignored = op.Equal(labels, options.ignoreIndex);
  const target = op.Where(ignored, 0, labels);
  const counted = op.Cast(op.Not(ignored), { to: dtype });
  const weights = classWeights === undefined ? undefined : vector(b, classWeights, dtype);
  const rowWeight = weights === undefined ? counted : op.Mul(counted, op.Gather(weights, target));

  const p = op.Softmax(z, last);
  const top = op.ReduceMax(z, [-1], perRow);
  const topP = op.ReduceMax(p, [-1], perRow);
  const own = op.GatherElements(z, target, last);
  const logTopP = op.Log(topP);
  const nll = op.Sub(op.Sub(top, own), logTopP);
  const weight = op.ReduceSum(rowWeight, { keepdims: 0 });
  const correct = op.ReduceSum(op.Mul(counted, op.Cast(op.GreaterOrEqual(own, top), { to: dtype })), {
    keepdims: 0,
  });
  const hard = op.ReduceSum(op.Mul(nll, rowWeight), { keepdims: 0 });

  const smooth =
    epsilon === 0
      ? undefined
      : smoothingTerms(b, { z, shape, dtype, top, logTopP, counted, weights, epsilon });

  const total = smooth === undefined ? hard : op.Add(op.Mul(hard, 1 - epsilon), smooth.total);
  return {
    total,
    weight,
    correct,
    gradient(scale) {
      // ∂/∂z_c = scale·(p_c·((1 − ε)·w_y + ε/classes·Σw) − ε/classes·w_c − (1 − ε)·w_y·[c = y])
      const c = op.Mul(rowWeight, epsilon === 0 ? scale : op.Mul(scale, 1 - epsilon));
      const dense =
        smooth === undefined
          ? op.Mul(p, c)
          : op.Sub(op.Mul(p, op.Add(c, op.Mul(smooth.mass, scale))), op.Mul(smooth.uniform, scale));
      const corrected = op.Sub(op.GatherElements(dense, target, last), c);
      const dz = op.ScatterElements(dense, target, corrected, last);
      return { of: logits, value: castTo(b, dz, stored) };
    },
  };
}

interface SmoothingInputs {
  readonly z: Value;
  readonly shape: Shape;
  readonly dtype: DType;
  readonly top: Value;
  readonly logTopP: Value;
  readonly counted: Value;
  readonly weights: Value | undefined;
  readonly epsilon: number;
}

/** ε/classes · Σ_c w_c·(−log p_c) over the counted rows, and the per-row pieces of its gradient. */
function smoothingTerms(
  b: Builder,
  { z, shape, dtype, top, logTopP, counted, weights, epsilon }: SmoothingInputs,
): { total: Value; mass: Value; uniform: Value } {
  const { op } = b;
  const classes = shape.at(-1);
  const perClass =
    typeof classes === 'number'
      ? b.scalar(epsilon / classes, dtype)
      : op.Div(b.scalar(epsilon, dtype), op.Cast(op.Gather(op.Shape(z), -1), { to: dtype }));
  const rate = op.Mul(counted, perClass);
  // −log p_c = (top − z_c) − log p_top
  const surprise = op.Sub(op.Sub(top, z), logTopP);
  const weighted = weights === undefined ? surprise : op.Mul(surprise, weights);
  const perRow = op.ReduceSum(weighted, [-1], { keepdims: 1 });
  return {
    total: op.ReduceSum(op.Mul(perRow, rate), { keepdims: 0 }),
    mass:
      weights === undefined ? op.Mul(counted, epsilon) : op.Mul(rate, op.ReduceSum(weights, { keepdims: 0 })),
    uniform: weights === undefined ? rate : op.Mul(weights, rate),
  };
}
