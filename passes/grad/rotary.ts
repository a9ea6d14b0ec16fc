/** Rotary embeddings rotate pairs by an angle; the transpose of a rotation rotates by the negative angle. */
import type { Attribute } from '../../src/attribute.js';
import type { GradientContext } from './context.js';
import { type Contribution, defineGradient, type Gradient } from './rule.js';

function rotated(c: GradientContext, sine: number): readonly Contribution[] {
  const attributes: Record<string, Attribute> = Object.fromEntries(c.node.attributes);
  return c.node.inputs.map((_, index) =>
    index === 0
      ? () => {
          const inputs = c.node.inputs.map((value, i) => {
            if (i === 0) return c.dy;
            return i === sine && value !== null ? c.op.Neg(value) : value;
          });
          return c.b.call(c.node.op, inputs, attributes, { domain: c.node.domain })[0] ?? c.dy;
        }
      : c.stop('its angles are trained'),
  );
}

export const rotaries: readonly Gradient[] = [
  defineGradient({ op: 'RotaryEmbedding' }, (c) => rotated(c, 2)),
  defineGradient({ op: 'RotaryEmbedding', domain: 'com.microsoft' }, (c) => rotated(c, 3)),
];
