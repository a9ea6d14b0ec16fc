/**
 * `com.microsoft.Attention`: query, key and value are projected inside the op by one packed weight [in, q + k + v], so
 * that no projected value exists and only the weight form can attach.
 */
import { intsAttribute } from '../../../src/attribute.js';
import { isBias, storedBias } from '../bias.js';
import type { Detector } from '../draft.js';
import { graphOf, linearWeight } from '../linear.js';

export const packedAttention: Detector = {
  ops: ['com.microsoft.Attention'],
  detect(node) {
    const weight = linearWeight(node, 1, { transposed: false });
    if (weight === undefined) return [];
    const { inDim, outDim } = weight;
    const x = node.input(0);
    const sizes = intsAttribute(node, 'qkv_hidden_sizes') ?? [outDim / 3, outDim / 3, outDim / 3];
    let start = 0;
    const parts = sizes.map((size) => {
      const columns = { start, end: start + size };
      start += size;
      return { columns, x, y: undefined };
    });
    const b = node.inputs[2];
    return [
      {
        kind: 'linear',
        node,
        graph: graphOf(node),
        dtype: weight.dtype,
        x,
        xAxis: -1,
        y: undefined,
        yAxis: -1,
        weight: weight.view,
        inDim,
        outDim,
        ...(b !== null && b !== undefined && isBias(b, outDim)
          ? storedBias(node, node.inputs.indexOf(b))
          : {}),
        ...(start === outDim && sizes.every(Number.isInteger) ? { parts } : {}),
      },
    ];
  },
};
