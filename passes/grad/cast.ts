/** Gradients of dtype changes and of the ops that are the identity in exported models. */
import { isFloat } from '../../src/types.js';
import { defineGradient, type Gradient } from './rule.js';

export const casts: readonly Gradient[] = [
  // Of integers that stand for reals, the cotangent is a float already.
  defineGradient({ op: 'Cast' }, (c) => [() => (isFloat(c.dtype()) ? c.castLike(c.dy, c.x) : c.dy)]),
  defineGradient({ op: 'CastLike' }, (c) => [() => c.castLike(c.dy, c.x), null]),
  defineGradient({ op: 'Dropout' }, (c) => [
    () => {
      const training = c.optional(2);
      const inert = training === undefined || c.scalar(training) === 0 || c.scalar(c.optional(1)) === 0;
      // y = x·mask/(1 - ratio); the ratio is an input and may be computed.
      if (inert || !isFloat(c.dtype())) return c.dy;
      const mask = c.node.outputs[1];
      if (mask === null || mask === undefined) return c.unsupported('its mask output is not there');
      const ratio = c.scalar(c.optional(1)) ?? (c.optional(1) === undefined ? 0.5 : undefined);
      const kept = c.op.Mul(c.dy, c.mask(mask));
      if (ratio !== undefined) return { value: kept, scale: 1 / (1 - ratio) };
      return c.op.Div(kept, c.op.Sub(1, c.castLike(c.input(1), c.x)));
    },
  ]),
];
