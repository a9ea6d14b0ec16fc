/** Operators that older opsets lack, in terms of those they have. Each states the formula of the operator's definition. */
import type { Value } from '../../graph.js';
import type { Builder } from '../builder.js';
import { decompose, type Lowering, type Parts } from './step.js';

type Op = Builder['op'];

function dtypeOf(p: Parts, value: Value) {
  return value.type?.kind === 'tensor' ? value.type.dtype : p.fail('the dtype of the input must be known');
}

/** x cast to float32 where the definition computes there, and the way back. */
function inFloat32(p: Parts, op: Op, x: Value): { wide: Value; back: (y: Value) => Value } {
  const dtype = dtypeOf(p, x);
  const narrow = dtype === 'float16' || dtype === 'bfloat16';
  return {
    wide: narrow ? op.Cast(x, { to: 'float32' }) : x,
    back: (y) => (narrow ? op.Cast(y, { to: dtype }) : y),
  };
}

/** Axes from `axis` to the last. */
function axesFrom(p: Parts, axis: number): number[] {
  if (axis === -1) return [-1];
  const rank = p.rank(0);
  const first = axis < 0 ? axis + rank : axis;
  return Array.from({ length: rank - first }, (_, i) => first + i);
}

/** y = ½ x (1 + erf(x / √2)), or ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))). */
const gelu = decompose((p, op) => {
  const x = p.value(0);
  const inner =
    p.text('approximate', 'none') === 'tanh'
      ? op.Tanh(op.Mul(op.Add(x, op.Mul(op.Mul(op.Mul(x, x), x), 0.044715)), Math.sqrt(2 / Math.PI)))
      : op.Erf(op.Mul(x, Math.SQRT1_2));
  return op.Mul(op.Mul(x, op.Add(inner, 1)), 0.5);
});

/** y = (x − mean) / √(var + ε) · scale + bias over the axes from `axis` on; mean and 1/√(var + ε) besides. */
const layerNormalization = decompose((p, op) => {
  const x = p.value(0);
  const { wide, back } = inFloat32(p, op, x);
  const axes = axesFrom(p, p.int('axis', -1));
  const mean = op.ReduceMean(wide, axes);
  const centered = op.Sub(wide, mean);
  const variance = op.ReduceMean(op.Mul(centered, centered), axes);
  const deviation = op.Sqrt(op.Add(variance, p.float('epsilon', 1e-5)));
  const scaled = op.Mul(back(op.Div(centered, deviation)), p.value(1));
  const bias = p.optional(2);
  const y = bias === undefined ? scaled : op.Add(scaled, bias);
  return p.wanted === 1 ? y : [y, mean, op.Reciprocal(deviation)];
});

/** y = x / √(mean(x²) + ε) · scale. */
const rmsNormalization = decompose((p, op) => {
  const x = p.value(0);
  const { wide, back } = inFloat32(p, op, x);
  const square = op.ReduceMean(op.Mul(wide, wide), axesFrom(p, p.int('axis', -1)));
  const root = op.Sqrt(op.Add(square, p.float('epsilon', 1e-5)));
  return op.Mul(back(op.Div(wide, root)), p.value(1));
});

/** x [n, c, …] normalised over each group of channels, then scaled and shifted per channel. */
const groupNormalization = decompose((p, op) => {
  const x = p.value(0);
  const rank = p.rank(0);
  const { wide, back } = inFloat32(p, op, x);
  const grouped = op.Reshape(wide, [0, p.int('num_groups', 1), -1]);
  const centered = op.Sub(grouped, op.ReduceMean(grouped, [-1]));
  const variance = op.ReduceMean(op.Mul(centered, centered), [-1]);
  const flat = op.Div(centered, op.Sqrt(op.Add(variance, p.float('epsilon', 1e-5))));
  const normal = back(op.Reshape(flat, op.Shape(x)));
  const channel = [-1, ...new Array<number>(rank - 2).fill(1)];
  return op.Add(op.Mul(normal, op.Reshape(p.value(1), channel)), op.Reshape(p.value(2), channel));
});

/** Keeps x[…, i, j] with j − i ≥ k (upper) or ≤ k (lower). */
const trilu = decompose((p, op) => {
  const x = p.value(0);
  const shape = op.Shape(x);
  const rank = p.rank(0);
  const rows = op.Unsqueeze(op.Range(0n, op.Gather(shape, BigInt(rank - 2)), 1n), [1]);
  const columns = op.Unsqueeze(op.Range(0n, op.Gather(shape, BigInt(rank - 1)), 1n), [0]);
  const k = p.optional(1, 'int64') ?? p.builder.scalar(0n, 'int64');
  const offset = op.Sub(columns, rows);
  const keep = p.int('upper', 1) !== 0 ? op.Not(op.Less(offset, k)) : op.Not(op.Greater(offset, k));
  return op.Where(keep, x, 0);
});

const steps = (before: number, step: Lowering['step']): readonly Lowering[] => [{ before, step }];

export const decompositions: Readonly<Record<string, readonly Lowering[]>> = {
  Gelu: steps(20, gelu),
  LayerNormalization: steps(17, layerNormalization),
  RMSNormalization: steps(23, rmsNormalization),
  GroupNormalization: steps(21, groupNormalization),
  Trilu: steps(14, trilu),
  // NaN compares false, so ≥ is no negated <.
  GreaterOrEqual: steps(
    12,
    decompose((p, op) => op.Or(op.Greater(p.value(0), p.value(1)), op.Equal(p.value(0), p.value(1)))),
  ),
  LessOrEqual: steps(
    12,
    decompose((p, op) => op.Or(op.Less(p.value(0), p.value(1)), op.Equal(p.value(0), p.value(1)))),
  ),
  /** x · tanh(softplus(x)) */
  Mish: steps(
    18,
    decompose((p, op) => op.Mul(p.value(0), op.Tanh(op.Softplus(p.value(0))))),
  ),
  /** x · max(0, min(1, x/6 + ½)) */
  HardSwish: steps(
    14,
    decompose((p, op) => op.Mul(p.value(0), op.HardSigmoid(p.value(0), { alpha: 1 / 6, beta: 0.5 }))),
  ),
  /** x · σ(αx) */
  Swish: steps(
    24,
    decompose((p, op) => {
      const x = p.value(0);
      const alpha = p.float('alpha', 1);
      return op.Mul(x, op.Sigmoid(alpha === 1 ? x : op.Mul(x, alpha)));
    }),
  ),
  /** max(0, x) + min(0, α (exp(x/α) − 1)) = α · elu(x/α) for α > 0 */
  Celu: steps(
    12,
    decompose((p, op) => {
      const alpha = p.float('alpha', 1);
      const x = p.value(0);
      return op.Mul(op.Elu(op.Mul(x, 1 / alpha)), alpha);
    }),
  ),
  CastLike: steps(
    15,
    decompose((p, op) => op.Cast(p.value(0), { to: dtypeOf(p, p.value(1)) })),
  ),
};
