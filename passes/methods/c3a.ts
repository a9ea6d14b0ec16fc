import { z } from 'zod';
import { zeros } from '../../src/initializer.js';
import { defineMethod } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  size: z
    .int()
    .min(1)
    .default(256)
    .describe('Size b of the circulant blocks; divides the sizes of the modules'),
});

/**
 * Circular convolution adaptation: `W' = W + D`, D of circulant b × b blocks:
 * `D[n b + t, m b + k] = K[m, n, (t − k) mod b] / in`.
 */
export default defineMethod({
  id: 'c3a',
  summary: 'Update of circulant blocks',
  paper: { title: 'Parameter-Efficient Fine-Tuning via Circular Convolution', arxiv: '2407.19342' },
  config,
  internal: ofFiles('C3A'),
  sites: {
    linear: onWeights(
      ({ inDim, outDim }, { size }: z.output<typeof config>) => ({
        kernel: { shape: [outDim / size, inDim / size, size], init: zeros, key: 'c3a_kernel' },
      }),
      (op, { w }, { kernel }, { size }, { inDim, outDim }) => {
        const shifts = Array.from(
          { length: size * size },
          (_, i) => (i - Math.floor(i / size) + size) % size,
        );
        const places = op.Reshape(op.Constant({ value_ints: shifts }), [size, size]);
        // [m, n, k, t] as [n, t, m, k]
        const blocks = op.Transpose(op.Gather(kernel, places, { axis: 2 }), { perm: [1, 3, 0, 2] });
        return { w: op.Add(w, op.Div(op.Reshape(blocks, [inDim, outDim]), inDim)) };
      },
    ),
  },
  peft: {
    types: ['C3A'],
    tensors: { linear: { kernel: { key: 'c3a_kernel' } } },
    settings: (fields, module) => ({
      size: module?.shapes.get('c3a_kernel')?.[2] ?? numberOf(fields, 'block_size', 256),
    }),
    patterns: { block_size: 'block_size_pattern' },
    config: ({ size }) => ({ block_size: size }),
  },
});
