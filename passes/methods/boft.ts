import { z } from 'zod';
import { ones, zeros } from '../../src/initializer.js';
import { defineMethod } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { asRow } from './parts/convolution.js';
import { ofFiles, onWeights } from './parts/on-weights.js';
import { cayley, rotated } from './parts/rotation.js';

const config = z.strictObject({
  size: z.int().min(2).default(4).describe('Size of the rotated blocks; divides the input of the modules'),
});

/**
 * Orthogonal butterfly, one factor: `W' = (blockdiag(R₁, R₂, …) W) ⊙ s`, `R = (I − K)(I + K)⁻¹` with
 * `K = (Q − Qᵀ) / 2`. More factors are PEFT's CUDA kernel alone.
 */
export default defineMethod({
  id: 'boft',
  summary: 'Rotation of the inputs of every module and a scale on its outputs',
  paper: {
    title: 'Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization',
    arxiv: '2311.06243',
  },
  config,
  internal: ofFiles('BOFT'),
  sites: {
    linear: onWeights(
      ({ inDim, outDim }, { size }: z.output<typeof config>) => ({
        R: { shape: [1, inDim / size, size, size], init: zeros, key: 'boft_R' },
        s: { shape: [outDim, 1], init: ones, key: 'boft_s' },
      }),
      (op, { w }, { R, s }, { size }, { outDim }) => {
        const blocks = op.Reshape(R, [-1, size, size]);
        const skew = op.Mul(op.Sub(blocks, op.Transpose(blocks, { perm: [0, 2, 1] })), 0.5);
        const turned = rotated(op, cayley(op, skew, size), w, size, outDim);
        return { w: op.Mul(turned, op.Transpose(s, { perm: [1, 0] })) };
      },
    ),
  },
  peft: {
    types: ['BOFT'],
    tensors: { linear: { R: { key: 'boft_R' }, s: { key: 'boft_s', convolved: asRow } } },
    settings: (fields, module) => ({
      size: module?.shapes.get('boft_R')?.[2] ?? numberOf(fields, 'boft_block_size', 4),
    }),
    config: ({ size }) => ({ boft_block_size: size, boft_block_num: 0, boft_n_butterfly_factor: 1 }),
  },
});
