/** `com.microsoft.MatMulNBits` and `MatMulBnb4`: weights quantised in blocks. A float branch can run beside them. */
import { dtypeOf } from '../../../src/value-type.js';
import { storedBias } from '../bias.js';
import type { Detector } from '../draft.js';
import { linearDraft } from '../linear.js';
import { intAttribute, payloadOf } from '../payload.js';

export const blockQuantized: Detector = {
  ops: ['com.microsoft.MatMulNBits', 'com.microsoft.MatMulBnb4'],
  detect(node) {
    const packed = node.input(1);
    const scales = payloadOf(node.input(2));
    const inDim = intAttribute(node, 'K', 0);
    const outDim = intAttribute(node, 'N', 0);
    if (payloadOf(packed) === undefined || scales === undefined || inDim === 0 || outDim === 0) return [];
    const b = node.inputs[5];
    const view = {
      value: packed,
      transposed: true,
      scale: 1,
      consumed: packed,
      consumedTransposed: true,
      input: 1,
      chain: [],
      storage: 'packed',
    } as const;
    const x = node.input(0);
    // Scales may be bytes (double quantisation); then the op computes in the type of x.
    const floating = dtypeOf(x) ?? scales.dtype;
    return [
      linearDraft({
        node,
        x,
        y: node.output(0),
        weight: { view, inDim, outDim, dtype: floating, rank: 2 },
        ...(b === null || b === undefined ? {} : storedBias(node, node.inputs.indexOf(b))),
      }),
    ];
  },
};
