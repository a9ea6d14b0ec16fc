/** `com.microsoft.EmbedLayerNormalization`: up to three tables summed and normalised inside one op. */
import type { Detector, EmbeddingDraft } from '../draft.js';
import { embeddingDraft } from '../embedding.js';

/** Input slots of table and ids: words, positions, segments. Without ids of positions they are those of the words' order. */
const TABLES: readonly (readonly [table: number, ids: number, otherwise?: number])[] = [
  [2, 0],
  [3, 8, 0],
  [4, 1],
];

export const embedLayerNorm: Detector = {
  ops: ['com.microsoft.EmbedLayerNormalization'],
  detect(node) {
    const drafts: EmbeddingDraft[] = [];
    for (const [table, slot, otherwise] of TABLES) {
      const ids = node.inputs[slot] ?? (otherwise === undefined ? undefined : node.inputs[otherwise]);
      if (ids === null || ids === undefined) continue;
      const draft = embeddingDraft(node, table, ids, undefined);
      if (draft !== undefined) drafts.push(draft);
    }
    return drafts;
  },
};
