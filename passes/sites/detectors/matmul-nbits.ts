/** Products with a quantised weight: a float branch can run beside them. `passes/quantize` knows how they are stored. */

import { isFloat } from '../../../src/types.js';
import { dtypeOf } from '../../../src/value-type.js';
import { PRODUCT_OPS, quantizedProduct } from '../../quantize/products.js';
import { storedBias } from '../bias.js';
import type { Detector } from '../draft.js';
import { linearDraft } from '../linear.js';

export const quantizedLinear: Detector = {
  ops: PRODUCT_OPS,
  detect(node) {
    const product = quantizedProduct(node);
    if (product === undefined) return [];
    const { x, y, input, bias, inDim, outDim, transposed } = product;
    const packed = node.input(input);
    const view = {
      value: packed,
      transposed,
      scale: 1,
      consumed: packed,
      consumedTransposed: transposed,
      input,
      chain: [],
      storage: 'packed',
    } as const;
    const dtype = dtypeOf(x) ?? dtypeOf(y);
    return [
      linearDraft({
        node,
        x,
        y,
        weight: {
          view,
          inDim,
          outDim,
          dtype: dtype !== undefined && isFloat(dtype) ? dtype : 'float32',
          rank: 2,
        },
        ...(bias === undefined ? {} : storedBias(node, bias)),
      }),
    ];
  },
};
