/** Ops that move, select or replicate elements. */
import {
  addDims,
  boundsOf,
  canonicalDim,
  ceilDivDims,
  divideDims,
  floorDivDims,
  maxDims,
  minDims,
  mulDims,
  productOf,
  subDims,
} from '../../dims.js';
import type { Dim, Shape } from '../../types.js';
import { type Call, type Rule, type Rules, unknownShape } from '../call.js';
import { broadcastShapes, unifyDims, withDim } from '../shapes.js';

/** Length of a vector input, when it is a number. */
function lengthOf(c: Call, index: number): number | undefined {
  const shape = c.shape(index);
  const [length] = shape ?? [];
  return shape?.length === 1 && typeof length === 'number' ? length : undefined;
}

function vectorShape(c: Call, index: number): Shape | null {
  const length = lengthOf(c, index);
  return length === undefined ? null : unknownShape(length);
}

/** Target of Reshape with 0 (copy, unless allowzero) and −1 (the rest) resolved. */
export function reshapeTarget(input: Shape | null, target: readonly Dim[], allowZero: boolean): Dim[] {
  const out = target.map((dim, axis) => (dim === 0 && !allowZero ? (input?.[axis] ?? null) : dim));
  const open = out.map((dim, axis) => (dim === -1 || dim === null ? axis : -1)).filter((axis) => axis >= 0);
  const [axis] = open;
  if (axis === undefined) return out;
  // Dimensions copied from the input cancel even when they are unknown.
  const copied = new Set(
    target.map((dim, i) => (dim === 0 && !allowZero ? i : -1)).filter((i) => i >= 0 && out[i] === null),
  );
  const rest = open.filter((i) => !copied.has(i));
  if (rest.length !== 1 || input === null) return out.map((dim) => (dim === -1 ? null : dim));
  const total = productOf(input.filter((_, i) => !copied.has(i)));
  const known = productOf(out.filter((_, i) => i !== rest[0] && !copied.has(i)));
  // With an empty tensor −1 is undetermined.
  out[rest[0]!] = known === 0 ? null : (divideDims(total, known) ?? floorDivDims(total, known));
  return out;
}

/** Beyond this a bound means "to the end", as exporters write it. */
const FAR = 2 ** 31 - 1;

/** Elements of a backward slice; symbolic axes only where the whole axis is reversed. */
function backwardSlice(dim: Dim, start: Dim, end: Dim, step: number): Dim {
  if (typeof dim === 'number' && typeof start === 'number' && typeof end === 'number') {
    // The start is clamped to [0, dim − 1], the end, which is left out, to [−1, dim − 1].
    const clamp = (x: number, least: number) => Math.min(Math.max(x < 0 ? x + dim : x, least), dim - 1);
    // ONNX Runtime takes the largest integer for the end of a backward slice too.
    const whole = end === FAR || end >= 2 ** 63 - 1;
    return Math.max(0, Math.ceil((clamp(start, 0) - (whole ? -1 : clamp(end, -1))) / -step));
  }
  const fromEnd = start === -1 || (typeof start === 'number' && start >= FAR);
  return fromEnd && typeof end === 'number' && end <= -FAR ? ceilDivDims(dim, -step) : null;
}

/**
 * Elements of a slice. A symbolic end past the axis is cut off (`Min`); a symbolic start is taken to lie inside the
 * axis with its end, so that a window [past, past + seq) of a table has seq rows.
 */
function sliceDim(dim: Dim, start: Dim, end: Dim, step: Dim): Dim {
  if (dim === null || start === null || end === null || typeof step !== 'number' || step === 0) return null;
  if (step < 0) return backwardSlice(dim, start, end, step);
  const at = (index: number | string): Dim => {
    if (typeof index === 'number' && index <= -FAR) return 0;
    const absolute = isNegative(index) ? addDims(dim, index) : index;
    if (typeof absolute !== 'number') return absolute;
    if (typeof dim === 'number') return Math.min(Math.max(absolute, 0), dim);
    return absolute >= FAR ? dim : Math.max(absolute, 0);
  };
  const from = at(start);
  const to = at(end);
  const length = crosses(dim, start, end, subDims(to, from))
    ? maxDims(0, subDims(minDims(to, dim), maxDims(0, from)))
    : insideLength(dim, from, to);
  return step === 1 ? length : ceilDivDims(length, step);
}

/** Elements between two indices of which the first is in the axis. */
function insideLength(dim: Dim, from: Dim, to: Dim): Dim {
  // Axes are not taken to be empty, so one element exists.
  const within = typeof to === 'number' && to <= 1;
  const stop = typeof from === 'number' && !within ? minDims(to, dim) : to;
  const length = subDims(stop, from);
  return typeof length === 'number' ? Math.max(0, length) : length;
}

function isNegative(index: number | string): boolean {
  return boundsOf(index).max < 0;
}

/**
 * Whether small axes leave nothing of a slice, or cut it: indices from the end may cross the others, as in `x[-1:1]`, and
 * a fixed start may lie behind the end of the axis, as in `x[5:]`. A lone `x[1:]` or `x[:-1]` leaves none at worst.
 */
function crosses(dim: Dim, start: number | string, end: number | string, length: Dim): boolean {
  if (typeof dim === 'number' || length === null) return false;
  const fixed = isNegative(start) || isNegative(end) || (typeof start === 'number' && start > 1);
  return fixed && boundsOf(length).min < -1;
}

const slice: Rule = (c) => {
  const shape = c.shape(0);
  if (shape === null) return c.set(0, c.dtype(0), null);
  const attributes = c.ints('starts') !== undefined;
  const starts = c.ints('starts') ?? c.dims(1);
  const ends = c.ints('ends') ?? c.dims(2);
  const count = starts?.length ?? ends?.length ?? lengthOf(c, 1) ?? lengthOf(c, 2);
  const axes = attributes ? c.ints('axes') : c.has(3) ? c.numbers(3) : undefined;
  if ((axes === undefined && c.has(3) && !attributes) || (axes === undefined && count === undefined))
    return c.set(0, c.dtype(0), unknownShape(shape.length));
  const steps = attributes || !c.has(4) ? undefined : (c.dims(4) ?? new Array<Dim>(count ?? 0).fill(null));
  const out = [...shape];
  (axes ?? Array.from({ length: count! }, (_, i) => i)).forEach((given, i) => {
    const axis = c.axis(given, shape.length);
    out[axis] = sliceDim(
      shape[axis]!,
      starts?.[i] ?? null,
      ends?.[i] ?? null,
      steps === undefined ? 1 : (steps[i] ?? null),
    );
  });
  c.set(0, c.dtype(0), out);
};

const squeeze: Rule = (c) => {
  const shape = c.shape(0);
  if (shape === null) return c.set(0, c.dtype(0), null);
  const given = c.axes('axes', 1, shape.length);
  if (given === undefined) {
    const count = lengthOf(c, 1);
    return c.set(0, c.dtype(0), count === undefined ? null : unknownShape(shape.length - count));
  }
  const absent = c.ints('axes') === undefined && !c.has(1);
  if (absent && shape.some((dim) => dim === null)) return c.set(0, c.dtype(0), null);
  for (const axis of given) {
    const dim = shape[axis];
    if (typeof dim === 'number' && dim !== 1) c.error(`Squeeze of axis ${axis}, whose size is ${dim}`);
  }
  const drop = new Set(given);
  c.set(
    0,
    c.dtype(0),
    shape.filter((dim, axis) => (absent ? dim !== 1 : !drop.has(axis))),
  );
};

const unsqueeze: Rule = (c) => {
  const shape = c.shape(0);
  if (shape === null) return c.set(0, c.dtype(0), null);
  const count = c.ints('axes')?.length ?? c.numbers(1)?.length ?? lengthOf(c, 1);
  if (count === undefined) return c.set(0, c.dtype(0), null);
  const rank = shape.length + count;
  const axes = c.axes('axes', 1, rank);
  if (axes === undefined) return c.set(0, c.dtype(0), unknownShape(rank));
  const out = [...shape];
  for (const axis of axes) out.splice(axis, 0, 1);
  c.set(0, c.dtype(0), out);
};

const concat: Rule = (c) => {
  const count = c.node.inputs.length;
  let out: Dim[] | undefined;
  let dtype = c.dtype(0);
  for (let i = 0; i < count; i++) {
    dtype ??= c.dtype(i);
    const shape = c.shape(i);
    if (shape === null) return c.set(0, dtype, null);
    const axis = c.axis(c.int('axis', 1), shape.length);
    if (out === undefined) out = [...shape];
    else
      out = out.map((dim, j) =>
        j === axis
          ? addDims(dim, shape[j] ?? null)
          : unifyDims(c, dim, shape[j] ?? null, `Sizes of axis ${j}`),
      );
  }
  c.set(0, dtype, out ?? null);
};

const split: Rule = (c) => {
  const shape = c.shape(0);
  const dtype = c.dtype(0);
  const count = c.node.outputs.length;
  if (shape === null) {
    for (let i = 0; i < count; i++) c.set(i, dtype, null);
    return;
  }
  const axis = c.axis(c.int('axis', 0), shape.length);
  const sizes = c.ints('split') ?? (c.has(1) ? (c.dims(1) ?? new Array<Dim>(count).fill(null)) : undefined);
  const dim = shape[axis] ?? null;
  const parts = c.int('num_outputs', count);
  const part = ceilDivDims(dim, parts);
  for (let i = 0; i < count; i++) {
    // Equal parts, the last one smaller when the axis does not divide.
    const size =
      sizes !== undefined
        ? (sizes[i] ?? null)
        : i === parts - 1
          ? subDims(dim, mulDims(part, parts - 1))
          : part;
    c.set(i, dtype, withDim(shape, axis, size));
  }
};

const pad: Rule = (c) => {
  const shape = c.shape(0);
  if (shape === null) return c.set(0, c.dtype(0), null);
  const pads = c.ints('pads') ?? c.ints('paddings') ?? c.dims(1);
  const axes = c.has(3) ? c.numbers(3) : shape.map((_, i) => i);
  if (pads === undefined || axes === undefined) return c.set(0, c.dtype(0), unknownShape(shape.length));
  const out = [...shape];
  axes.forEach((given, i) => {
    const axis = c.axis(given, shape.length);
    out[axis] = addDims(out[axis]!, addDims(pads[i] ?? null, pads[i + axes.length] ?? null));
  });
  c.set(0, c.dtype(0), out);
};

const gather: Rule = (c) => {
  const data = c.shape(0);
  const indices = c.shape(1);
  if (data === null || indices === null) return c.set(0, c.dtype(0), null);
  const axis = c.axis(c.int('axis', 0), data.length);
  c.set(0, c.dtype(0), [...data.slice(0, axis), ...indices, ...data.slice(axis + 1)]);
};

const gatherNd: Rule = (c) => {
  const data = c.shape(0);
  const indices = c.shape(1);
  const depth = indices?.at(-1);
  if (data === null || indices === null || typeof depth !== 'number') return c.set(0, c.dtype(0), null);
  c.set(0, c.dtype(0), [...indices.slice(0, -1), ...data.slice(c.int('batch_dims', 0) + depth)]);
};

const resize: Rule = (c) => {
  const shape = c.shape(0);
  if (shape === null) return c.set(0, c.dtype(0), null);
  const scaleInput = c.node.op === 'Upsample' || c.node.inputs.length === 2 ? 1 : 2;
  const axes = c.ints('axes') ?? shape.map((_, i) => i);
  const sizes = c.has(3) ? c.dims(3) : undefined;
  const attribute = c.attribute('scales');
  const scales =
    attribute?.type === 'floats' ? attribute.value : c.has(scaleInput) ? c.numbers(scaleInput) : undefined;
  const policy = c.text('keep_aspect_ratio_policy', 'stretch');
  const out = [...shape];
  axes.forEach((given, i) => {
    const axis = c.axis(given, shape.length);
    const dim = shape[axis]!;
    const scale = scales?.[i];
    if (sizes !== undefined) out[axis] = policy === 'stretch' ? (sizes[i] ?? null) : null;
    else if (scale === undefined) out[axis] = null;
    // Runtimes multiply in float32, which may round up to the next size.
    else if (typeof dim === 'number') out[axis] = Math.floor(Math.fround(dim * scale));
    else
      out[axis] = Number.isInteger(scale)
        ? mulDims(dim, scale)
        : Number.isInteger(1 / scale)
          ? floorDivDims(dim, 1 / scale)
          : null;
  });
  c.set(0, c.dtype(0), out);
};

export const movement: Rules = {
  Reshape: (c) => {
    const attribute = c.ints('shape');
    const target = attribute ?? c.dims(1);
    c.set(
      0,
      c.dtype(0),
      target === undefined
        ? vectorShape(c, 1)
        : reshapeTarget(c.shape(0), target, c.int('allowzero', 0) !== 0),
    );
  },
  Flatten: (c) => {
    const shape = c.shape(0);
    const given = c.int('axis', 1);
    if (shape === null) return c.set(0, c.dtype(0), [null, null]);
    const axis = given < 0 ? given + shape.length : given;
    c.set(0, c.dtype(0), [productOf(shape.slice(0, axis)), productOf(shape.slice(axis))]);
  },
  Transpose: (c) => {
    const shape = c.shape(0);
    if (shape === null)
      return c.set(0, c.dtype(0), c.ints('perm') === undefined ? null : unknownShape(c.ints('perm')!.length));
    const perm = c.ints('perm') ?? shape.map((_, i) => shape.length - 1 - i);
    if (perm.length !== shape.length) c.error(`perm has ${perm.length} entries for rank ${shape.length}`);
    c.set(
      0,
      c.dtype(0),
      perm.map((axis) => shape[axis] ?? null),
    );
  },
  Squeeze: squeeze,
  Unsqueeze: unsqueeze,
  Concat: concat,
  Split: split,
  Slice: slice,
  Pad: pad,
  Tile: (c) => {
    const shape = c.shape(0);
    const repeats = c.dims(1);
    c.set(
      0,
      c.dtype(0),
      shape === null ? vectorShape(c, 1) : shape.map((dim, i) => mulDims(dim, repeats?.[i] ?? null)),
    );
  },
  Expand: (c) => {
    const target = c.dims(1);
    const shape = target ?? vectorShape(c, 1);
    c.set(0, c.dtype(0), broadcastShapes(c, c.shape(0), shape === null ? null : shape.map(canonicalDim)));
  },
  Gather: gather,
  GatherElements: (c) => c.set(0, c.dtype(0), c.shape(1)),
  GatherND: gatherNd,
  DepthToSpace: (c) => {
    const [n, ch, h, w] = c.shape(0) ?? [null, null, null, null];
    const b = c.int('blocksize', 1);
    c.set(0, c.dtype(0), [
      n ?? null,
      floorDivDims(ch ?? null, b * b),
      mulDims(h ?? null, b),
      mulDims(w ?? null, b),
    ]);
  },
  SpaceToDepth: (c) => {
    const [n, ch, h, w] = c.shape(0) ?? [null, null, null, null];
    const b = c.int('blocksize', 1);
    c.set(0, c.dtype(0), [
      n ?? null,
      mulDims(ch ?? null, b * b),
      floorDivDims(h ?? null, b),
      floorDivDims(w ?? null, b),
    ]);
  },
  Compress: (c) => {
    const shape = c.shape(0);
    const axis = c.int('axis');
    if (axis === undefined) return c.set(0, c.dtype(0), [c.engine.freshDim()]);
    c.set(
      0,
      c.dtype(0),
      shape === null ? null : withDim(shape, c.axis(axis, shape.length), c.engine.freshDim()),
    );
  },
  Unique: (c) => {
    const shape = c.shape(0);
    const axis = c.int('axis');
    const count = c.engine.freshDim();
    c.set(
      0,
      c.dtype(0),
      axis === undefined
        ? [count]
        : shape === null
          ? null
          : withDim(shape, c.axis(axis, shape.length), count),
    );
    c.set(1, 'int64', [count]);
    c.set(2, 'int64', [
      axis === undefined ? productOf(shape ?? [null]) : (shape?.[c.axis(axis, shape.length)] ?? null),
    ]);
    c.set(3, 'int64', [count]);
  },
  Resize: resize,
  Upsample: resize,
  CenterCropPad: (c) => {
    const shape = c.shape(0);
    if (shape === null) return c.set(0, c.dtype(0), null);
    const axes = c.ints('axes') ?? shape.map((_, i) => i);
    const sizes = c.dims(1);
    const out = [...shape];
    axes.forEach((given, i) => {
      out[c.axis(given, shape.length)] = sizes?.[i] ?? null;
    });
    c.set(0, c.dtype(0), out);
  },
};
