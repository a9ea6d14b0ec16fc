/** DequantizeLinear: integers and scales in, floats out; per tensor, per axis, or per block. */

import { payloadOf } from '../payload.js';
import type { Link } from './link.js';

export const dequantize: Link = {
  ops: ['DequantizeLinear', 'com.microsoft.DequantizeLinear'],
  dims: (_node, input) => input,
  dtype: (node) => {
    const scale = node.input(1);
    const type = scale.type;
    return payloadOf(scale)?.dtype ?? (type?.kind === 'tensor' ? type.dtype : undefined);
  },
  storage: 'dequantized',
};
