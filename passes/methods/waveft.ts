import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod } from './contract/method.js';
import { ofFiles, onWeights } from './parts/on-weights.js';
import {
  rowsAndColumns,
  spectrumFormat,
  spectrumParams,
  spectrumSettings,
  tooLong,
} from './parts/spectrum.js';

const DEFAULTS = { count: 2592, scaling: 25 };
const config = z.strictObject({
  ...spectrumSettings(DEFAULTS),
  transform: z
    .boolean()
    .default(true)
    .describe('Whether the numbers are coefficients of Haar wavelets, or entries of the update themselves'),
});
const { read, ...format } = spectrumFormat('WAVEFT', 'waveft_spectrum', DEFAULTS);

/** Wavelets of length two: PEFT's `db1`. */
const HAAR = ['db1', 'haar'];

/** The numbers in a matrix of zeros. */
function placed(
  op: Ops,
  spectrum: Value,
  rows: Value,
  columns: Value,
  dims: readonly [number, number],
): Value {
  const at = op.Concat([op.Unsqueeze(rows, [1]), op.Unsqueeze(columns, [1])], { axis: 1 });
  const zeros = op.CastLike(op.ConstantOfShape(op.Constant({ value_ints: [...dims] })), spectrum);
  return op.ScatterND(zeros, at, spectrum);
}

/**
 * One step of the inverse transform of a matrix whose quarters are averages a, horizontal h, vertical v and diagonal d
 * details: every 2 × 2 block is (a + h + v + d, a + h − v − d; a − h + v − d, a − h − v + d) / 2.
 */
function inverseHaar(op: Ops, all: Value, height: number, width: number): Value {
  const [tall, wide] = [height / 2, width / 2];
  const quarter = (row: number, column: number) =>
    op.Slice(all, [row * tall, column * wide], [(row + 1) * tall, (column + 1) * wide], [0, 1]);
  const [a, h, v, d] = [quarter(0, 0), quarter(0, 1), quarter(1, 0), quarter(1, 1)];
  const [rowsSum, rowsDifference] = [op.Add(a, h), op.Sub(a, h)];
  const [detailSum, detailDifference] = [op.Add(v, d), op.Sub(v, d)];
  const corners = [
    op.Add(rowsSum, detailSum),
    op.Sub(rowsSum, detailSum),
    op.Add(rowsDifference, detailDifference),
    op.Sub(rowsDifference, detailDifference),
  ].map((corner) => op.Unsqueeze(op.Mul(corner, 0.5), [0, 1]));
  return op.Squeeze(op.DepthToSpace(op.Concat(corners, { axis: 1 }), { blocksize: 2 }), [0, 1]);
}

/** [out, in] */
function update(
  op: Ops,
  { spectrum, places }: { readonly spectrum: Value; readonly places: Value },
  transform: boolean,
  { inDim, outDim }: LinearDims,
): Value {
  const [rows, columns] = rowsAndColumns(op, places);
  if (!transform) return placed(op, spectrum, rows, columns, [outDim, inDim]);
  // Sides are made even at their ends.
  const [height, width] = [outDim + (outDim % 2), inDim + (inDim % 2)];
  const whole = inverseHaar(op, placed(op, spectrum, rows, columns, [height, width]), height, width);
  return height === outDim && width === inDim ? whole : op.Slice(whole, [0, 0], [outDim, inDim], [0, 1]);
}

/**
 * Few wavelet coefficients of the update: `W' = W + s·H⁻¹(c)`, H one step of the Haar transform. Places are drawn by
 * torch's generator from a seed, and here again.
 */
export default defineMethod({
  id: 'waveft',
  summary: 'Few wavelet coefficients of the update',
  paper: {
    title: 'Exploring Sparsity for Parameter Efficient Fine Tuning Using Wavelets',
    arxiv: '2505.12532',
  },
  config,
  internal: ofFiles('WAVEFT'),
  sites: {
    linear: {
      refuses: tooLong,
      ...onWeights(
        (site, settings: z.output<typeof config>) => spectrumParams(site, settings, 'waveft_spectrum'),
        (op, { w }, params, { scaling, transform }, site) => {
          const change = op.Transpose(update(op, params, transform, site), { perm: [1, 0] });
          return { w: op.Add(w, op.Mul(change, scaling)) };
        },
      ),
    },
  },
  peft: {
    ...format,
    refuses: (fields) =>
      fields.use_idwt !== false && !HAAR.includes(String(fields.wavelet_family ?? 'db1'))
        ? `its wavelets '${String(fields.wavelet_family)}' are longer than Haar's, which are read; merge it in Python (merge_and_unload) and export that model instead`
        : format.refuses?.(fields),
    settings: (fields, module) => ({ ...read(fields, module), transform: fields.use_idwt !== false }),
    config: ({ count, scaling, seed, transform }) => ({
      n_frequency: count,
      scaling,
      random_loc_seed: seed,
      use_idwt: transform,
      wavelet_family: 'db1',
    }),
  },
});
