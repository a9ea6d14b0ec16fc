import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineOptimizer } from './optimizer.js';

/**
 * Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as `torch.optim.AdamW`:
 * ```
 * p ← p·(1 − lr·λ);  m ← β₁m + (1 − β₁)g;  v ← β₂v + (1 − β₂)g²
 * p ← p − lr/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε)
 * ```
 */
export const adamw = defineOptimizer({
  id: 'adamw',
  summary: 'Adam with decoupled weight decay, as torch.optim.AdamW',
  config: z.strictObject({
    beta1: z.number().min(0).lt(1).default(0.9),
    beta2: z.number().min(0).lt(1).default(0.999),
    eps: z.number().min(0).default(1e-8),
    weightDecay: z.number().min(0).default(0.01),
  }),
  slots: () => [
    { name: 'm', init: 0 },
    { name: 'v', init: 0 },
  ],
  formula: (op, step, { beta1, beta2, eps, weightDecay }) => {
    const correction1 = oneMinusPower(op, beta1, step);
    const inverseRoot2 = op.Reciprocal(op.Sqrt(oneMinusPower(op, beta2, step)));
    return ({ param, gradient: g, state, lr, weightDecay: decays }) => {
      const m = op.Add(op.Mul(state.m!, beta1), op.Mul(g, 1 - beta1));
      const v = op.Add(op.Mul(state.v!, beta2), op.Mul(op.Mul(g, g), 1 - beta2));
      const denominator = op.Add(op.Mul(op.Sqrt(v), inverseRoot2), eps);
      const delta = op.Mul(op.Div(m, denominator), op.Div(lr, correction1));
      const decayed = decays && weightDecay > 0 ? op.Mul(param, op.Sub(1, op.Mul(lr, weightDecay))) : param;
      return { param: op.Sub(decayed, delta), state: { m, v } };
    };
  },
});

/**
 * 1 − βᵗ without cancellation: with T = tanh(−t·ln(β)/2) it is 2T/(1 + T). In float32, `1 − Pow(0.999, 1)` is wrong in
 * the fifth digit, which shows in the loss; PyTorch computes it in float64.
 */
function oneMinusPower(op: Ops, beta: number, step: Value): Value {
  // β = 0: e^(−2·50) is below the resolution of 1 in float64.
  const halfRate = beta === 0 ? 50 : -Math.log(beta) / 2;
  const t = op.Tanh(op.Mul(step, halfRate));
  return op.Div(op.Mul(t, 2), op.Add(t, 1));
}
