/** `GatherND` of whole slices: experts selected for every token, as torch.export writes it. */
import { intAttribute } from '../../../src/attribute.js';
import { sizeAt } from '../../../src/value-type.js';
import type { Detector } from '../draft.js';
import { selectedExperts } from '../experts.js';

export const gatherNd: Detector = {
  ops: ['GatherND'],
  detect: (node) =>
    intAttribute(node, 'batch_dims', 0) === 0 && sizeAt(node.input(1), -1) === 1 ? selectedExperts(node) : [],
};
