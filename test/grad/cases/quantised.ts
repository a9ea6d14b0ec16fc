/** Products with weights in blocks: linear in their float operand. ONNX Runtime has them in float32 only. */

import type { Value } from '../../../src/graph.js';
import { randomStream } from '../../../src/initializer.js';
import { encodeNumbers } from '../../../src/literals.js';
import type { Builder } from '../../../src/ops/builder.js';
import { tensorOfBytes } from '../../../src/tensor.js';
import type { GradientCase } from '../harness.js';

function bytes(b: Builder, dims: readonly number[], seed: number): Value {
  const random = randomStream(seed, 'bytes');
  const count = dims.reduce((all, dim) => all * dim, 1);
  return b.constant(
    tensorOfBytes(
      'uint8',
      dims,
      Uint8Array.from({ length: count }, () => Math.floor(256 * random())),
    ),
  );
}

function floats(b: Builder, dims: readonly number[], seed: number, offset = 0): Value {
  const random = randomStream(seed, 'floats');
  const count = dims.reduce((all, dim) => all * dim, 1);
  const values = Array.from({ length: count }, () => offset + 0.02 + 0.1 * random());
  return b.constant(tensorOfBytes('float32', dims, encodeNumbers('float32', values)));
}

interface NBits {
  readonly bits: number;
  readonly zeros: 'none' | 'packed' | 'float';
  readonly bias?: boolean;
  readonly x: readonly number[];
}

const OUT = 5;
const BLOCK = 16;

function nbits({ bits, zeros, bias = false, x }: NBits): GradientCase {
  const inDim = x.at(-1) ?? 0;
  const blocks = Math.ceil(inDim / BLOCK);
  return {
    name: `${bits} bits, ${zeros} zero points${bias ? ', bias' : ''}, x [${x}]`,
    dtype: 'float32',
    // ONNX Runtime wants to know the length of a bias before it runs.
    ...(bias ? { variants: ['static' as const] } : {}),
    inputs: [{ shape: x }, ...(bias ? [{ shape: [OUT] }] : [])],
    build: (b, [value, added]) => {
      const zero =
        zeros === 'none'
          ? null
          : zeros === 'packed'
            ? bytes(b, [OUT, Math.ceil((blocks * bits) / 8)], 3)
            : floats(b, [OUT, blocks], 3, 2 ** (bits - 1));
      const weight = bytes(b, [OUT, blocks, (BLOCK * bits) / 8], 1);
      const inputs = [value!, weight, floats(b, [OUT, blocks], 2), zero, null, added ?? null];
      const attributes = { K: inDim, N: OUT, bits, block_size: BLOCK };
      return b.call('MatMulNBits', inputs, attributes, { domain: 'com.microsoft' });
    },
  };
}

function bnb4(type: number, block: number, inDim: number): GradientCase {
  return {
    name: `type ${type}, blocks of ${block}, ${inDim} inputs`,
    dtype: 'float32',
    inputs: [{ shape: [2, 3, inDim] }],
    build: (b, [x]) => {
      const size = 8 * inDim;
      return b.call(
        'MatMulBnb4',
        [x!, bytes(b, [size / 2], 1), floats(b, [size / block], 2)],
        { K: inDim, N: 8, quant_type: type, block_size: block },
        { domain: 'com.microsoft' },
      );
    },
  };
}

export const quantised: Record<string, GradientCase[]> = {
  'com.microsoft.MatMulNBits': [
    nbits({ bits: 4, zeros: 'none', x: [2, 3, 32] }),
    nbits({ bits: 4, zeros: 'packed', x: [2, 3, 40] }),
    nbits({ bits: 4, zeros: 'float', x: [3, 32] }),
    nbits({ bits: 8, zeros: 'packed', bias: true, x: [2, 3, 24] }),
    nbits({ bits: 2, zeros: 'none', x: [2, 3, 24] }),
  ],
  'com.microsoft.MatMulBnb4': [bnb4(1, 16, 16), bnb4(1, 32, 16), bnb4(0, 16, 24)],
};
