/** Clipping and the optimizer, over buckets. */
import type { Value } from '../../src/graph.js';
import type { Builder } from '../../src/ops/builder.js';
import type { DType } from '../../src/types.js';
import { castTo } from '../losses/loss.js';
import type { ConfiguredOptimizer } from '../optimizers/optimizer.js';
import type { Bucket } from './buckets.js';

export interface UpdateInputs {
  readonly buckets: readonly Bucket[];
  /** Per bucket. */
  readonly params: readonly Value[];
  /** Per bucket; the gradient of the batch is `gradients · scale`. */
  readonly gradients: readonly Value[];
  /** Per bucket, by slot. */
  readonly state: readonly Readonly<Record<string, Value>>[];
  /** float32 scalar; absent for 1. */
  readonly scale?: Value;
  /** float32 scalars. */
  readonly lr: Value;
  readonly step: Value;
  readonly optimizer: ConfiguredOptimizer;
  readonly maxNorm: number | null;
}

export interface UpdateOutputs {
  /** Per bucket. */
  readonly params: readonly Value[];
  readonly state: readonly Readonly<Record<string, Value>>[];
  /** float32 scalar: 2-norm of the scaled gradient over all buckets, before clipping. */
  readonly gradNorm: Value;
}

/** Builds g ← scale·g, norm = ‖g‖₂, g ← g·min(1, maxNorm/(norm + 1e-6)) and the optimizer's formula. */
export function buildUpdate(b: Builder, inputs: UpdateInputs): UpdateOutputs {
  const { op } = b;
  const { buckets, scale, maxNorm } = inputs;
  const squares = inputs.gradients.map((g) => castTo(b, op.ReduceSumSquare(g, { keepdims: 0 }), 'float32'));
  const rawNorm = op.Sqrt(squares.reduce((sum, square) => op.Add(sum, square)));
  const gradNorm = scale === undefined ? rawNorm : op.Mul(rawNorm, scale);
  // 1e-6 as in torch.nn.utils.clip_grad_norm_.
  const clip =
    maxNorm === null ? undefined : op.Min([op.Div(maxNorm, op.Add(gradNorm, 1e-6)), b.scalar(1, 'float32')]);
  const factor = clip === undefined ? scale : scale === undefined ? clip : op.Mul(clip, scale);

  const formulas = new Map<DType, ReturnType<ConfiguredOptimizer['formula']>>();
  const formulaFor = (dtype: DType): ReturnType<ConfiguredOptimizer['formula']> => {
    const known = formulas.get(dtype);
    if (known !== undefined) return known;
    const made = inputs.optimizer.formula(op, castTo(b, inputs.step, dtype));
    formulas.set(dtype, made);
    return made;
  };

  const updated = buckets.map((bucket, i) => {
    const { dtype, lrScale, weightDecay } = bucket;
    const lr = castTo(b, inputs.lr, dtype);
    const gradient = inputs.gradients[i]!;
    return formulaFor(dtype)({
      param: inputs.params[i]!,
      gradient: factor === undefined ? gradient : op.Mul(gradient, castTo(b, factor, dtype)),
      state: inputs.state[i]!,
      lr: lrScale === 1 ? lr : op.Mul(lr, lrScale),
      weightDecay,
    });
  });
  return {
    params: updated.map(({ param }) => param),
    state: updated.map(({ state }) => state),
    gradNorm,
  };
}
