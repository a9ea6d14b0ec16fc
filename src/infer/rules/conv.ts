/** Convolutions and pooling over [n, channels, spatial…]. */
import { addDims, ceilDivDims, floorDivDims, minDims, mulDims, subDims } from '../../dims.js';
import { countOf, type Dim, type DType, type Shape } from '../../types.js';
import { type Call, type Rule, type Rules, unknownShape } from '../call.js';

interface Window {
  readonly kernel: readonly Dim[];
  /** Rounds the number of windows up. */
  readonly ceil: boolean;
}

/** ⌊(size + pads − dilation·(kernel − 1) − 1) / stride⌋ + 1, or what auto_pad states. */
function windows(c: Call, spatial: Shape, { kernel, ceil }: Window): Dim[] {
  const strides = c.ints('strides');
  const dilations = c.ints('dilations');
  const pads = c.ints('pads');
  const auto = c.text('auto_pad', 'NOTSET');
  return spatial.map((size, i) => {
    const stride = strides?.[i] ?? 1;
    if (auto === 'SAME_UPPER' || auto === 'SAME_LOWER') return ceilDivDims(size, stride);
    const pad = auto === 'VALID' ? 0 : (pads?.[i] ?? 0) + (pads?.[i + spatial.length] ?? 0);
    const extent = mulDims(subDims(kernel[i] ?? null, 1), dilations?.[i] ?? 1);
    const free = subDims(subDims(addDims(size, pad), extent), 1);
    if (!ceil) return addDims(floorDivDims(free, stride), 1);
    // The last window must start inside the input or its leading padding.
    const last = subDims(addDims(size, pads?.[i] ?? 0), 1);
    return addDims(minDims(ceilDivDims(free, stride), floorDivDims(last, stride)), 1);
  });
}

const convolution =
  (weight: number, dtypeOf: (c: Call) => DType | undefined): Rule =>
  (c) => {
    const x = c.shape(0);
    const w = c.shape(weight);
    const dtype = dtypeOf(c);
    if (x === null) return c.set(0, dtype, w === null ? null : unknownShape(w.length));
    const kernel = c.ints('kernel_shape') ?? w?.slice(2) ?? [];
    c.set(0, dtype, [x[0] ?? null, w?.[0] ?? null, ...windows(c, x.slice(2), { kernel, ceil: false })]);
  };

const transposed: Rule = (c) => {
  const x = c.shape(0);
  const w = c.shape(1);
  if (x === null) return c.set(0, c.dtype(0), w === null ? null : unknownShape(w.length));
  const kernel = c.ints('kernel_shape') ?? w?.slice(2) ?? [];
  const fixed = c.ints('output_shape');
  const auto = c.text('auto_pad', 'NOTSET');
  const spatial = x.slice(2);
  const sizes = spatial.map((size, i): Dim => {
    const stride = c.ints('strides')?.[i] ?? 1;
    if (fixed !== undefined) return fixed.at(i - spatial.length) ?? null;
    if (auto.startsWith('SAME')) return mulDims(size, stride);
    const pads = c.ints('pads');
    const pad = auto === 'VALID' ? 0 : (pads?.[i] ?? 0) + (pads?.[i + spatial.length] ?? 0);
    const extent = mulDims(subDims(kernel[i] ?? null, 1), c.ints('dilations')?.[i] ?? 1);
    const grown = addDims(mulDims(subDims(size, 1), stride), addDims(extent, 1));
    return subDims(addDims(grown, c.ints('output_padding')?.[i] ?? 0), pad);
  });
  c.set(0, c.dtype(0), [x[0] ?? null, mulDims(w?.[1] ?? null, c.int('group', 1)), ...sizes]);
};

const pool: Rule = (c) => {
  const x = c.shape(0);
  if (x === null) return c.set(0, c.dtype(0), null);
  const window = { kernel: c.ints('kernel_shape') ?? [], ceil: c.int('ceil_mode', 0) !== 0 };
  const shape = [...x.slice(0, 2), ...windows(c, x.slice(2), window)];
  c.set(0, c.dtype(0), shape);
  c.set(1, 'int64', shape);
};

const globalPool: Rule = (c) => {
  const x = c.shape(0);
  c.set(0, c.dtype(0), x?.map((dim, i) => (i < 2 ? dim : 1)) ?? null);
};

const roiPool = (size: (c: Call) => readonly Dim[]): Rule => {
  return (c) => c.set(0, c.dtype(0), [c.shape(1)?.[0] ?? null, c.shape(0)?.[1] ?? null, ...size(c)]);
};

export const convolutions: Rules = {
  Conv: convolution(1, (c) => c.dtype(0)),
  DeformConv: convolution(1, (c) => c.dtype(0)),
  ConvInteger: convolution(1, () => 'int32'),
  QLinearConv: convolution(3, (c) => c.dtype(7)),
  ConvTranspose: transposed,
  MaxPool: pool,
  AveragePool: pool,
  LpPool: pool,
  GlobalAveragePool: globalPool,
  GlobalMaxPool: globalPool,
  GlobalLpPool: globalPool,
  MaxRoiPool: roiPool((c) => c.ints('pooled_shape') ?? [null, null]),
  RoiAlign: (c) =>
    c.set(0, c.dtype(0), [
      c.shape(1)?.[0] ?? null,
      c.shape(0)?.[1] ?? null,
      c.int('output_height', 1),
      c.int('output_width', 1),
    ]),
  MaxUnpool: (c) => {
    const x = c.shape(0);
    if (x === null) return c.set(0, c.dtype(0), null);
    if (c.has(2)) return c.set(0, c.dtype(0), c.dims(2) ?? unknownShape(x.length));
    const kernel = c.ints('kernel_shape') ?? [];
    const pads = c.ints('pads');
    const sizes = x.slice(2).map((size, i) => {
      const pad = (pads?.[i] ?? 0) + (pads?.[i + x.length - 2] ?? 0);
      return subDims(addDims(mulDims(subDims(size, 1), c.ints('strides')?.[i] ?? 1), kernel[i] ?? null), pad);
    });
    c.set(0, c.dtype(0), [...x.slice(0, 2), ...sizes]);
  },
  Col2Im: (c) => {
    const [n = null, columns = null] = c.shape(0) ?? [];
    const block = c.numbers(2);
    const area = block === undefined ? null : countOf(block);
    const [length] = c.shape(1) ?? [];
    const image = c.dims(1) ?? (typeof length === 'number' ? unknownShape(length) : undefined);
    c.set(0, c.dtype(0), image === undefined ? null : [n, floorDivDims(columns, area), ...image]);
  },
  GridSample: (c) => {
    const x = c.shape(0);
    const grid = c.shape(1);
    c.set(
      0,
      c.dtype(0),
      x === null || grid === null ? null : [x[0] ?? null, x[1] ?? null, ...grid.slice(1, -1)],
    );
  },
  AffineGrid: (c) => {
    const size = c.dims(1);
    c.set(0, c.dtype(0), size === undefined ? null : [size[0] ?? null, ...size.slice(2), size.length - 2]);
  },
};
