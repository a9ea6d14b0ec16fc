import { z } from 'zod';
import { zeros } from '../../src/initializer.js';
import { defineMethod } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';
import { cayley, cayleySeries, rotated, skewOf } from './parts/rotation.js';

const config = z.strictObject({
  size: z.int().min(2).default(32).describe('Size of the rotated blocks; divides the input of the modules'),
  shared: z.boolean().default(false).describe('One rotation for all blocks'),
  terms: z
    .int()
    .min(0)
    .default(5)
    .describe('Terms of the series of the Cayley transform; 0 for the transform itself'),
});

/**
 * Orthogonal fine-tuning: `W' = blockdiag(R₁, R₂, …) W`, every R a Cayley transform of a skew-symmetric matrix. PEFT's
 * series and its exact transform rotate in opposite directions; a folder says which of them it was trained with.
 */
export default defineMethod({
  id: 'oft',
  summary: 'Rotation of the inputs of every module, block by block',
  paper: { title: 'Controlling Text-to-Image Diffusion by Orthogonal Finetuning', arxiv: '2306.07280' },
  config,
  internal: ofFiles('OFT'),
  sites: {
    linear: {
      ...onWeights(
        ({ inDim }, { size, shared }: z.output<typeof config>) => ({
          R: {
            shape: [shared ? 1 : inDim / size, (size * (size - 1)) / 2],
            init: zeros,
            key: 'oft_R',
          },
        }),
        (op, { w }, { R }, { size, terms }, { outDim }) => {
          const skew = skewOf(op, R, size);
          const rotation = terms === 0 ? cayley(op, skew, size) : cayleySeries(op, skew, size, terms);
          return { w: rotated(op, rotation, w, size, outDim) };
        },
      ),
      refuses: ({ inDim }, { size }) =>
        inDim % size === 0 ? undefined : `${inDim} inputs cannot be cut into blocks of ${size}`,
    },
  },
  peft: {
    types: ['OFT'],
    refuses: ({ coft }) =>
      coft === true
        ? 'constrained OFT projects its parameters whenever it runs; merge it in Python (merge_and_unload) and export that model instead'
        : undefined,
    tensors: { linear: { R: { key: 'oft_R.weight' } } },
    settings: (fields, module) => {
      // n (n − 1) / 2 entries.
      const entries = module?.shapes.get('oft_R.weight')?.[1] ?? 0;
      return {
        size:
          module === undefined
            ? numberOf(fields, 'oft_block_size', 32)
            : (1 + Math.sqrt(1 + 8 * entries)) / 2,
        shared: fields.block_share === true,
        terms: fields.use_cayley_neumann === false ? 0 : numberOf(fields, 'num_cayley_neumann_terms', 5),
      };
    },
    config: ({ size, shared, terms }) => ({
      r: 0,
      oft_block_size: size,
      block_share: shared,
      use_cayley_neumann: terms !== 0,
      ...(terms === 0 ? {} : { num_cayley_neumann_terms: terms }),
    }),
  },
});
