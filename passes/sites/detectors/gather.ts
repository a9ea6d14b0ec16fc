/** `Gather(table, ids)` over rows of a constant matrix: an embedding. */
import { intAttribute } from '../../../src/attribute.js';
import type { Detector } from '../draft.js';
import { embeddingDraft } from '../embedding.js';
import { selectedExperts } from '../experts.js';
import { payloadOf } from '../payload.js';
import { integerTable } from './quantized-gather.js';

export const gather: Detector = {
  ops: ['Gather'],
  detect(node) {
    if (intAttribute(node, 'axis', 0) !== 0) return [];
    const ids = node.input(1);
    // A scalar index picks one row of a parameter; that is indexing, not a lookup.
    if (payloadOf(ids)?.dims.length === 0) return [];
    const draft = embeddingDraft(node, 0, ids, node.output(0));
    if (draft !== undefined) return [draft];
    const experts = selectedExperts(node);
    return experts.length > 0 ? experts : integerTable(node);
  },
};
