import { z } from 'zod';
import { defineOptimizer } from './optimizer.js';

/**
 * Stochastic gradient descent, as `torch.optim.SGD`:
 * ```
 * g ← g + λp;  b ← μb + (1 − τ)g (b = g in the first step);  p ← p − lr·(nesterov ? g + μb : b)
 * ```
 */
export const sgd = defineOptimizer({
  id: 'sgd',
  summary: 'Stochastic gradient descent with momentum, as torch.optim.SGD',
  config: z
    .strictObject({
      momentum: z.number().min(0).default(0),
      dampening: z.number().default(0),
      nesterov: z.boolean().default(false),
      weightDecay: z.number().min(0).default(0),
    })
    .refine(({ nesterov, momentum, dampening }) => !nesterov || (momentum > 0 && dampening === 0), {
      message: 'nesterov needs momentum above 0 and no dampening',
    }),
  slots: ({ momentum }) => (momentum > 0 ? [{ name: 'momentum', init: 0 }] : []),
  formula: (op, step, { momentum, dampening, nesterov, weightDecay }) => {
    // 1 in the first step and 1 − τ from the second on: the buffer starts as zero, so nothing else is special there.
    const damping = dampening === 0 ? undefined : op.Sub(1, op.Mul(op.Min([op.Sub(step, 1), 1]), dampening));
    return ({ param, gradient, state, lr, weightDecay: decays }) => {
      const g = decays && weightDecay > 0 ? op.Add(gradient, op.Mul(param, weightDecay)) : gradient;
      if (momentum === 0) return { param: op.Sub(param, op.Mul(g, lr)), state: {} };
      const b = op.Add(op.Mul(state.momentum!, momentum), damping === undefined ? g : op.Mul(g, damping));
      const direction = nesterov ? op.Add(g, op.Mul(b, momentum)) : b;
      return { param: op.Sub(param, op.Mul(direction, lr)), state: { momentum: b } };
    };
  },
});
