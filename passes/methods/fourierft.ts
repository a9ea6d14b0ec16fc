import { z } from 'zod';
import { defineMethod } from './contract/method.js';
import { ofFiles, onWeights } from './parts/on-weights.js';
import {
  rowsAndColumns,
  spectrumFormat,
  spectrumParams,
  spectrumSettings,
  tooLong,
} from './parts/spectrum.js';

const DEFAULTS = { count: 1000, scaling: 150 };
const config = z.strictObject(spectrumSettings(DEFAULTS));
const { read, ...format } = spectrumFormat('FOURIERFT', 'fourierft_spectrum', DEFAULTS);

/**
 * Few numbers c of the spectrum of the update: `W' = W + s·Re F⁻¹(c)`, that is
 * `ΔW[i, o] = s / (in·out) Σ_k c_k cos(2π (o·row_k / out + i·column_k / in))`, a product of cosines and sines of both
 * sides. Places are drawn by torch's generator from a seed, and here again.
 */
export default defineMethod({
  id: 'fourierft',
  summary: 'Few entries of the spectrum of the update',
  paper: {
    title: 'Parameter-Efficient Fine-Tuning with Discrete Fourier Transform',
    arxiv: '2405.03003',
  },
  config,
  internal: ofFiles('FOURIERFT'),
  sites: {
    linear: {
      refuses: tooLong,
      ...onWeights(
        (site, settings: z.output<typeof config>) => spectrumParams(site, settings, 'fourierft_spectrum'),
        (op, { w }, { spectrum, places }, { scaling }, { inDim, outDim }) => {
          const [rows, columns] = rowsAndColumns(op, places);
          // Whole turns are left out while the numbers are integers.
          const angles = (size: number, frequencies: typeof rows) => {
            const grid = op.Mul(op.Unsqueeze(op.Range(0n, BigInt(size), 1n), [1]), frequencies);
            return op.Mul(op.CastLike(op.Mod(grid, size), spectrum), (2 * Math.PI) / size);
          };
          const [into, out] = [angles(inDim, columns), angles(outDim, rows)];
          const turned = (m: typeof into) => op.Transpose(m, { perm: [1, 0] });
          const scaled = op.Mul(spectrum, scaling / (inDim * outDim));
          const even = op.MatMul(op.Mul(op.Cos(into), scaled), turned(op.Cos(out)));
          const odd = op.MatMul(op.Mul(op.Sin(into), scaled), turned(op.Sin(out)));
          return { w: op.Add(w, op.Sub(even, odd)) };
        },
      ),
    },
  },
  peft: {
    ...format,
    settings: read,
    config: ({ count, scaling, seed }) => ({ n_frequency: count, scaling, random_loc_seed: seed }),
  },
});
