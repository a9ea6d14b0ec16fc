import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod, type ParamSpecs } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';
import { cayley, cayleySeries, rotated, skewOf } from './parts/rotation.js';

const config = z.strictObject({
  size: z
    .int()
    .min(2)
    .default(32)
    .describe('Size of the rotated blocks; divides the input of linear modules, the width of embeddings'),
  shared: z.boolean().default(false).describe('One rotation for all blocks'),
  terms: z
    .int()
    .min(0)
    .default(5)
    .describe('Terms of the series of the Cayley transform; 0 for the transform itself'),
  radius: z
    .number()
    .positive()
    .optional()
    .describe(
      'Largest length of all skew-symmetric matrices together, to which longer ones are cut (PEFT coft, eps)',
    ),
});
type Config = z.output<typeof config>;

const TINY = 1e-30;

/** Entries above the diagonal, cut where their matrices [blocks, size, size] are longer than radius / √blocks. */
function constrained(op: Ops, entries: Value, blocks: number, radius: number | undefined): Value {
  if (radius === undefined) return entries;
  // Every entry stands in its matrix twice.
  const lengths = op.Mul(op.ReduceL2(entries, [1], { keepdims: 1 }), Math.SQRT2);
  const factors = op.Div(radius / Math.sqrt(blocks), op.Max([lengths, TINY]));
  return op.Mul(entries, op.Min([factors, 1]));
}

function rotationOf(op: Ops, R: Value, width: number, { size, shared, terms, radius }: Config): Value {
  const skew = skewOf(op, constrained(op, R, shared ? 1 : width / size, radius), size);
  return terms === 0 ? cayley(op, skew, size) : cayleySeries(op, skew, size, terms);
}

function paramsOf(width: number, { size, shared }: Config, key: string): ParamSpecs<'R'> {
  return {
    R: { shape: [shared ? 1 : width / size, (size * (size - 1)) / 2], init: zeros, key },
  };
}

/** w blockdiag(R₁, R₂, …), [vocab, dim]. */
function turnedColumns(op: Ops, w: Value, rotation: Value, size: number, vocab: number): Value {
  const across = op.Transpose(w, { perm: [1, 0] });
  const turned = rotated(op, op.Transpose(rotation, { perm: [0, 2, 1] }), across, size, vocab);
  return op.Transpose(turned, { perm: [1, 0] });
}

/** Numbers above the diagonal, n (n − 1) / 2, of blocks of size n. */
function sizeOf(entries: number): number {
  return (1 + Math.sqrt(1 + 8 * entries)) / 2;
}

function indivisible(width: number, { size }: Config): string | undefined {
  return width % size === 0 ? undefined : `${width} cannot be cut into blocks of ${size}`;
}

/**
 * Orthogonal fine-tuning: `W' = blockdiag(R₁, R₂, …) W`, every R a Cayley transform of a skew-symmetric matrix; of
 * embeddings the columns are rotated, `W' = W blockdiag(R₁, R₂, …)`. PEFT's series and its exact transform rotate in
 * opposite directions; a folder says which of them it was trained with.
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
        ({ inDim }, settings: Config) => paramsOf(inDim, settings, 'oft_R'),
        (op, { w }, { R }, settings, { inDim, outDim }) => ({
          w: rotated(op, rotationOf(op, R, inDim, settings), w, settings.size, outDim),
        }),
      ),
      refuses: ({ inDim }, settings) => indivisible(inDim, settings),
    },
    embedding: {
      refuses: ({ dim }, settings) => indivisible(dim, settings),
      params: ({ dim }, settings) => paramsOf(dim, settings, 'oft_embedding_R'),
      attach: (op, { w, vocab, dim }, { R }, settings) => ({
        w: turnedColumns(op, w, rotationOf(op, R, dim, settings), settings.size, vocab),
      }),
      fold: (op, { w }, { R }, settings, { vocab, dim }) => ({
        w: turnedColumns(op, w, rotationOf(op, R, dim, settings), settings.size, vocab),
      }),
    },
  },
  peft: {
    types: ['OFT'],
    tensors: {
      linear: { R: { key: 'oft_R.weight' } },
      embedding: { R: { key: 'oft_embedding_R.weight' } },
    },
    settings: (fields, module) => {
      const shape = module?.shapes.get('oft_R.weight') ?? module?.shapes.get('oft_embedding_R.weight');
      return {
        size: shape === undefined ? numberOf(fields, 'oft_block_size', 32) : sizeOf(shape[1] ?? 0),
        shared: fields.block_share === true,
        terms: fields.use_cayley_neumann === false ? 0 : numberOf(fields, 'num_cayley_neumann_terms', 5),
        ...(fields.coft === true ? { radius: numberOf(fields, 'eps', 6e-5) } : {}),
      };
    },
    config: ({ size, shared, terms, radius }) => ({
      r: 0,
      oft_block_size: size,
      block_share: shared,
      use_cayley_neumann: terms !== 0,
      ...(terms === 0 ? {} : { num_cayley_neumann_terms: terms }),
      ...(radius === undefined ? {} : { coft: true, eps: radius }),
    }),
  },
});
