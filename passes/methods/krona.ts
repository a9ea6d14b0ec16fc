import { z } from 'zod';
import { uniform, zeros } from '../../src/initializer.js';
import { defineMethod } from './contract/method.js';
import { kronecker, kroneckerShape, timesKronecker, tooLarge } from './parts/kronecker.js';
import { branchDropout } from './parts/low-rank.js';

const config = z.strictObject({
  factor: z
    .int()
    .default(-1)
    .describe(
      'Rows and columns of the first factor; -1 splits the sizes of the weight near their square roots',
    )
    .refine((factor) => factor === -1 || factor > 0, 'must be -1 or positive'),
  scale: z.number().default(1).describe('Factor s on the update'),
  dropout: branchDropout,
});

/**
 * Kronecker adapter: `W' = W + s·kron(a, b)` with a [in₁, out₁], b [in₂, out₂], in = in₁·in₂ and out = out₁·out₂, computed
 * as `y' = y + s·aᵀ X b` with X the row of x as [in₁, in₂]. The update has full rank where the factors have. b starts at
 * zero and a Kaiming-uniform, so the adapted model equals the base before training.
 */
export default defineMethod({
  id: 'krona',
  summary: 'Kronecker product of two full matrices',
  paper: { title: 'KronA: Parameter Efficient Tuning with Kronecker Adapter', arxiv: '2212.10650' },
  config,
  sites: {
    linear: {
      refuses: (site, { factor }) => tooLarge(site, factor),
      params: ({ inDim, outDim }, { factor }) => {
        const { left, right } = kroneckerShape(inDim, outDim, factor);
        return {
          a: { shape: left, init: uniform(1 / Math.sqrt(left[0])), key: 'krona_a' },
          b: { shape: right, init: zeros, key: 'krona_b' },
        };
      },
      attach: (op, { x, y, inDim, outDim }, { a, b }, { factor, scale, dropout: p }, { dropout }) => {
        const shape = kroneckerShape(inDim, outDim, factor);
        return { y: op.Add(y, timesKronecker(op, dropout(x, p), op.Mul(a, scale), [b], shape)) };
      },
      fold: (op, { w }, { a, b }, { factor, scale }, { inDim, outDim }) => ({
        w: op.Add(w, kronecker(op, op.Mul(a, scale), b, kroneckerShape(inDim, outDim, factor))),
      }),
    },
  },
});
