import type { NormSite } from '../site.js';
import { sumOf } from '../structure/sums.js';
import type { NormDims } from '../views.js';
import type { Kind, Slot, StoredTensor } from './kind.js';
import { lazily } from './lazily.js';
import { effective } from './stack.js';
import { currentVector, storedVectorOf, vectorSlot } from './weights.js';

/** `y = normalize(x)·w + b`: LayerNorm and RMSNorm, as one op or written out. */
export const norm: Kind<NormSite> = {
  dims: ({ path, dtype, dim, offset }): NormDims => ({ path, dtype, dim, bias: offset !== undefined }),

  stored({ gain, offset }) {
    const stored: Record<string, StoredTensor> = { w: storedVectorOf(gain) };
    if (offset !== undefined) stored.b = storedVectorOf(offset);
    return stored;
  },

  open({ op }, site, stack) {
    const { gain, offset, node } = site;
    const y = stack.current.get('y') ?? site.y;
    const values = effective(op, stack, {
      w: () => currentVector(op, gain),
      ...(offset === undefined ? {} : { b: () => currentVector(op, offset) }),
    });
    const view = lazily(norm.dims(site), {
      x: () => sumOf(op, node) ?? site.x,
      y: () => y,
      w: values.w as () => unknown,
      b: values.b ?? (() => undefined),
    });
    const slots: Record<string, Slot> = { w: vectorSlot(op, gain) };
    if (offset !== undefined) slots.b = vectorSlot(op, offset);
    const producer = y.producer;
    if (producer !== undefined)
      slots.y = (value) => ({
        at: { after: producer },
        redirects: [{ from: y, to: value }],
        replaced: value,
      });
    return { view, slots };
  },
};
