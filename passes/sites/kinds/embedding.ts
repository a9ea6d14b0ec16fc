import type { Value } from '../../../src/graph.js';
import type { EmbeddingSite } from '../site.js';
import type { EmbeddingDims } from '../views.js';
import type { Kind, Slot } from './kind.js';
import { lazily } from './lazily.js';
import { effective } from './stack.js';
import { currentMatrix, matrixSlot, storedMatrix } from './weights.js';

/** `y = w[ids]`. */
export const embedding: Kind<EmbeddingSite> = {
  dims: ({ path, vocab, dim, dtype }): EmbeddingDims => ({ path, vocab, dim, dtype }),

  stored: ({ weight, vocab, dim, node }) => ({ w: storedMatrix(weight, vocab, node, dim) }),

  open({ op }, site, stack) {
    const { weight, vocab, node, path } = site;
    const y = stack.current.get('y') ?? site.y;
    const values = effective(op, stack, { w: () => currentMatrix(op, weight, vocab, node, path) });
    const view = lazily(embedding.dims(site), { ids: () => currentIds(site), y: () => y, ...values });
    const slots: Record<string, Slot> = { w: matrixSlot(op, weight, vocab, node) };
    const producer = y?.producer;
    if (y !== undefined && producer !== undefined)
      slots.y = (value) => ({
        at: { after: producer },
        redirects: [{ from: y, to: value }],
        replaced: value,
      });
    return { view, slots };
  },
};

/** The ids that the lookup reads by now: virtual tokens lengthen them. */
function currentIds({ node, ids, weight }: EmbeddingSite): Value {
  return node.inputs.includes(ids) ? ids : node.input(1 - weight.input);
}
