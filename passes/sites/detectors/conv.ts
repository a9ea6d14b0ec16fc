/** 1×1 `Conv` with one group and no padding or stride: a linear over the channel axis. */
import { storedBias } from '../bias.js';
import type { Detector } from '../draft.js';
import { linearDraft, linearWeight } from '../linear.js';
import { intAttribute, intsAttribute } from '../payload.js';

export const pointwiseConv: Detector = {
  ops: ['Conv'],
  detect(node) {
    const moves = (intsAttribute(node, 'strides') ?? []).map((stride) => stride - 1);
    const padded = [...(intsAttribute(node, 'pads') ?? []), ...moves].some((n) => n !== 0);
    if (padded || intAttribute(node, 'group', 1) !== 1) return [];
    const weight = linearWeight(node, 1, { transposed: true });
    if (weight === undefined) return [];
    return [
      linearDraft({
        node,
        x: node.input(0),
        xAxis: 1,
        y: node.output(0),
        yAxis: 1,
        weight,
        ...storedBias(node, 2),
      }),
    ];
  },
};
