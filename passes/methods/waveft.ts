import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod } from './contract/method.js';
import { daubechies, HIGHEST_ORDER, highPass } from './parts/daubechies.js';
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
    .describe('Whether the numbers are coefficients of wavelets, or entries of the update themselves'),
  order: z
    .int()
    .min(1)
    .max(HIGHEST_ORDER)
    .default(1)
    .describe("Order of Daubechies' wavelets; those of order 1 are Haar's"),
});
type Config = z.output<typeof config>;
const { read, ...format } = spectrumFormat('WAVEFT', 'waveft_spectrum', DEFAULTS);

/** The order of PEFT's `db<order>`; the first symmetric ones are the same. Undefined for other wavelets. */
function orderOf(family: unknown): number | undefined {
  const [, order] = /^(?:db(\d+)|sym[23])$/.exec(String(family ?? 'db1')) ?? [undefined, ''];
  const found = order === '' ? undefined : Number(order ?? String(family).slice(3));
  return found !== undefined && found >= 1 && found <= HIGHEST_ORDER ? found : undefined;
}

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

/**
 * One step of the inverse transform with filters of length 2·order: the quarters, spread to every other row and column,
 * each folded with its pair of filters. The numbers stand in the middle of a matrix that is wider by what filters reach
 * over, and of the result the middle stays.
 */
function reconstructed(
  op: Ops,
  { spectrum, rows, columns }: Readonly<Record<'spectrum' | 'rows' | 'columns', Value>>,
  order: number,
  [outDim, inDim]: readonly [number, number],
): Value {
  const reach = 2 * order - 2;
  const [height, width] = [outDim, inDim].map((size) => size + reach + ((size + reach) % 2)) as [
    number,
    number,
  ];
  const shift = (places: Value, wide: number, size: number) => op.Add(places, Math.floor((wide - size) / 2));
  const all = placed(op, spectrum, shift(rows, height, outDim), shift(columns, width, inDim), [
    height,
    width,
  ]);
  // [2, height / 2, 2, width / 2] → [1, 4, height / 2, width / 2]: averages, then details.
  const apart = op.Transpose(op.Reshape(all, [2, height / 2, 2, width / 2]), { perm: [0, 2, 1, 3] });
  const quarters = op.Reshape(apart, [1, 4, height / 2, width / 2]);
  const low = daubechies(order);
  const high = highPass(low);
  // A quarter on the right goes with a high-pass filter over rows, as PEFT pairs them.
  const filters = [low, high].flatMap((across) =>
    [low, high].flatMap((down) => down.flatMap((a) => across.map((b) => a * b))),
  );
  const kernel = op.CastLike(
    op.Reshape(op.Constant({ value_floats: filters }), [4, 1, 2 * order, 2 * order]),
    spectrum,
  );
  const whole = op.ConvTranspose(quarters, kernel, {
    strides: [2, 2],
    pads: [reach, reach, reach, reach],
  });
  const start = [height - reach - outDim, width - reach - inDim].map((more) => Math.floor(more / 2)) as [
    number,
    number,
  ];
  const middle = op.Slice(whole, start, [start[0] + outDim, start[1] + inDim], [2, 3]);
  return op.Reshape(middle, [outDim, inDim]);
}

/** [out, in] */
function update(
  op: Ops,
  { spectrum, places }: { readonly spectrum: Value; readonly places: Value },
  { transform, order }: Config,
  { inDim, outDim }: LinearDims,
): Value {
  const [rows, columns] = rowsAndColumns(op, places);
  if (!transform) return placed(op, spectrum, rows, columns, [outDim, inDim]);
  if (order > 1) return reconstructed(op, { spectrum, rows, columns }, order, [outDim, inDim]);
  // Sides are made even at their ends.
  const [height, width] = [outDim + (outDim % 2), inDim + (inDim % 2)];
  const whole = inverseHaar(op, placed(op, spectrum, rows, columns, [height, width]), height, width);
  return height === outDim && width === inDim ? whole : op.Slice(whole, [0, 0], [outDim, inDim], [0, 1]);
}

/**
 * Few wavelet coefficients of the update: `W' = W + s·H⁻¹(c)`, H one step of a wavelet transform. Places are drawn by
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
        (site, settings: Config) => spectrumParams(site, settings, 'waveft_spectrum'),
        (op, { w }, params, settings, site) => {
          const change = op.Transpose(update(op, params, settings, site), { perm: [1, 0] });
          return { w: op.Add(w, op.Mul(change, settings.scaling)) };
        },
      ),
    },
  },
  peft: {
    ...format,
    refuses: (fields) =>
      fields.use_idwt !== false && orderOf(fields.wavelet_family) === undefined
        ? `its wavelets '${String(fields.wavelet_family)}' are none of Daubechies' up to order ${HIGHEST_ORDER}, which are read; merge it in Python (merge_and_unload) and export that model instead`
        : format.refuses?.(fields),
    settings: (fields, module) => ({
      ...read(fields, module),
      transform: fields.use_idwt !== false,
      order: orderOf(fields.wavelet_family) ?? 1,
    }),
    config: ({ count, scaling, seed, transform, order }) => ({
      n_frequency: count,
      scaling,
      random_loc_seed: seed,
      use_idwt: transform,
      wavelet_family: `db${String(order ?? 1)}`,
    }),
  },
});
