/** Shape queries, and ops that move elements of known contents. */
import { addDims, maxDims, minDims, mulDims, productOf } from '../../dims.js';
import { countOf, type Dim } from '../../types.js';
import type { Call } from '../call.js';
import { CONTENTS_LIMIT, type Contents, contentsOfTensor } from '../contents.js';
import type { Fold, Folds } from './fold.js';
import { at, broadcastAt, generate } from './nd.js';

/** Shape of an output when all of it is numbers. */
function outputDims(c: Call, index = 0): readonly number[] | undefined {
  const type = c.node.outputs[index]?.type;
  if (type?.kind !== 'tensor' || type.shape === null) return undefined;
  const out: number[] = [];
  for (const dim of type.shape) {
    if (typeof dim !== 'number') return undefined;
    out.push(dim);
  }
  return out;
}

const one = (contents: Contents | undefined) => (contents === undefined ? undefined : [contents]);

/** The elements stay in order; only the shape changes. */
const reshaped: Fold = (c) => {
  const contents = c.contents(0);
  const dims = outputDims(c);
  if (contents === undefined || dims === undefined || countOf(dims) !== contents.items.length)
    return undefined;
  return [{ dims, items: contents.items }];
};

const shape: Fold = (c) => {
  const dims = c.shape(0);
  if (dims === null) return undefined;
  const items = dims.slice(c.int('start', 0), c.int('end', dims.length));
  return [{ dims: [items.length], items }];
};

const gather: Fold = (c) => {
  const data = c.contents(0);
  const indices = c.contents(1);
  const dims = outputDims(c);
  if (data === undefined || indices === undefined || dims === undefined) return undefined;
  const axis = c.axis(c.int('axis', 0), data.dims.length);
  const readData = at(data);
  const readIndex = at(indices);
  const rank = indices.dims.length;
  return one(
    generate(dims, (index) => {
      const i = readIndex(index.slice(axis, axis + rank));
      if (typeof i !== 'number') return null;
      const positive = i < 0 ? i + data.dims[axis]! : i;
      return readData([...index.slice(0, axis), positive, ...index.slice(axis + rank)]);
    }),
  );
};

const concat: Fold = (c) => {
  const dims = outputDims(c);
  if (dims === undefined || countOf(dims) > CONTENTS_LIMIT) return undefined;
  const axis = c.axis(c.int('axis', 0), dims.length);
  const parts: { read: ((index: readonly number[]) => Dim) | undefined; size: number }[] = [];
  let known = false;
  for (let i = 0; i < c.node.inputs.length; i++) {
    const contents = c.contents(i);
    const size = contents?.dims[axis] ?? c.shape(i)?.[axis];
    if (typeof size !== 'number') return undefined;
    known ||= contents !== undefined;
    parts.push({ read: contents === undefined ? undefined : at(contents), size });
  }
  if (!known) return undefined;
  return one(
    generate(dims, (index) => {
      let offset = index[axis]!;
      for (const { read, size } of parts) {
        if (offset < size) return read?.([...index.slice(0, axis), offset, ...index.slice(axis + 1)]);
        offset -= size;
      }
      return null;
    }),
  );
};

const slice: Fold = (c) => {
  const data = c.contents(0);
  const dims = outputDims(c);
  if (data === undefined || dims === undefined) return undefined;
  const starts = c.ints('starts') ?? c.numbers(1);
  const axes = c.ints('axes') ?? (c.has(3) ? c.numbers(3) : starts?.map((_, i) => i));
  const steps = c.has(4) ? c.numbers(4) : starts?.map(() => 1);
  if (starts === undefined || axes === undefined || steps === undefined) return undefined;
  const from = data.dims.map(() => 0);
  const by = data.dims.map(() => 1);
  axes.forEach((given, i) => {
    const axis = c.axis(given, data.dims.length);
    const size = data.dims[axis]!;
    const start = starts[i]! < 0 ? starts[i]! + size : starts[i]!;
    from[axis] = Math.min(Math.max(start, 0), steps[i]! < 0 ? size - 1 : size);
    by[axis] = steps[i]!;
  });
  const read = at(data);
  return one(generate(dims, (index) => read(index.map((i, axis) => from[axis]! + i * by[axis]!))));
};

const split: Fold = (c) => {
  const data = c.contents(0);
  if (data === undefined) return undefined;
  const axis = c.axis(c.int('axis', 0), data.dims.length);
  const read = at(data);
  let offset = 0;
  return c.node.outputs.map((_, i) => {
    const dims = outputDims(c, i);
    if (dims === undefined) return undefined;
    const start = offset;
    offset += dims[axis]!;
    return generate(dims, (index) => read(index.map((x, j) => (j === axis ? x + start : x))));
  });
};

const transpose: Fold = (c) => {
  const data = c.contents(0);
  const dims = outputDims(c);
  if (data === undefined || dims === undefined) return undefined;
  const perm = c.ints('perm') ?? dims.map((_, i) => dims.length - 1 - i);
  const read = at(data);
  return one(
    generate(dims, (index) => {
      const source = new Array<number>(index.length);
      perm.forEach((from, to) => {
        source[from] = index[to]!;
      });
      return read(source);
    }),
  );
};

const expand: Fold = (c) => {
  const data = c.contents(0);
  const dims = outputDims(c);
  return data === undefined || dims === undefined ? undefined : one(generate(dims, broadcastAt(data)));
};

const tile: Fold = (c) => {
  const data = c.contents(0);
  const dims = outputDims(c);
  if (data === undefined || dims === undefined) return undefined;
  const read = at(data);
  return one(generate(dims, (index) => read(index.map((i, axis) => i % data.dims[axis]!))));
};

const constantOfShape: Fold = (c) => {
  const dims = outputDims(c);
  if (dims === undefined) return undefined;
  const attribute = c.attribute('value');
  const payload = attribute?.type === 'tensor' ? attribute.value : undefined;
  const fill = payload === undefined ? 0 : contentsOfTensor(payload)?.items[0];
  return fill === undefined ? undefined : one(generate(dims, () => fill));
};

const range: Fold = (c) => {
  const start = c.dims(0)?.[0] ?? null;
  const delta = c.dims(2)?.[0] ?? null;
  const dims = outputDims(c);
  if (start === null || delta === null || dims === undefined) return undefined;
  return one(generate(dims, ([i = 0]) => addDims(start, mulDims(i, delta))));
};

function reduce(operation: (a: Dim, b: Dim) => Dim, empty: number | undefined): Fold {
  return (c) => {
    const data = c.contents(0);
    const dims = outputDims(c);
    if (data === undefined || dims === undefined || countOf(data.dims) > CONTENTS_LIMIT) return undefined;
    const given = c.axes('axes', 1, data.dims.length);
    if (given === undefined || (given.length === 0 && c.int('noop_with_empty_axes', 0) !== 0))
      return undefined;
    const gone = new Set(given.length === 0 ? data.dims.map((_, i) => i) : given);
    const kept = data.dims.map((dim, axis) => (gone.has(axis) ? 1 : dim));
    const sums = new Map<string, Dim>();
    const read = at(data);
    generate(data.dims, (index) => {
      const key = index.map((i, axis) => (gone.has(axis) ? 0 : i)).join();
      const known = sums.get(key);
      const item = read(index);
      sums.set(key, known === undefined ? item : operation(known, item));
      return null;
    });
    const result = generate(kept, (index) => sums.get(index.join()) ?? empty ?? null);
    return result === undefined ? undefined : [{ dims, items: result.items }];
  };
}

const nonZero: Fold = (c) => {
  const data = c.contents(0);
  if (data === undefined || data.items.some((item) => typeof item !== 'number')) return undefined;
  const found: (readonly number[])[] = [];
  const read = at(data);
  generate(data.dims, (index) => {
    if (read(index) !== 0) found.push([...index]);
    return null;
  });
  const rank = Math.max(1, data.dims.length);
  const dims = [rank, found.length];
  return one(generate(dims, ([axis = 0, i = 0]) => found[i]?.[axis] ?? 0));
};

const cumSum: Fold = (c) => {
  const data = c.contents(0);
  if (data === undefined || data.dims.length !== 1) return undefined;
  const reverse = c.int('reverse', 0) !== 0;
  const items = reverse ? [...data.items].reverse() : [...data.items];
  let sum: Dim = 0;
  const out = items.map((item) => {
    const before = sum;
    sum = addDims(sum, item);
    return c.int('exclusive', 0) !== 0 ? before : sum;
  });
  return [{ dims: data.dims, items: reverse ? out.reverse() : out }];
};

/** ScatterND of whole elements into a vector, as exporters assemble shapes. */
const scatterNd: Fold = (c) => {
  const data = c.contents(0);
  const indices = c.contents(1);
  const updates = c.contents(2);
  const reduction = c.text('reduction', 'none');
  if (data === undefined || indices === undefined || updates === undefined || data.dims.length !== 1)
    return undefined;
  if (indices.dims.at(-1) !== 1 || reduction !== 'none') return undefined;
  const items = [...data.items];
  for (const [i, index] of indices.items.entries()) {
    if (typeof index !== 'number') return undefined;
    items[index < 0 ? index + items.length : index] = updates.items[i] ?? null;
  }
  return [{ dims: data.dims, items }];
};

export const structure: Folds = {
  Shape: shape,
  Size: (c) => {
    const dims = c.shape(0);
    return dims === null ? undefined : [{ dims: [], items: [productOf(dims)] }];
  },
  Gather: gather,
  Concat: concat,
  Slice: slice,
  Split: split,
  Transpose: transpose,
  Expand: expand,
  Tile: tile,
  Reshape: reshaped,
  Flatten: reshaped,
  Squeeze: reshaped,
  Unsqueeze: reshaped,
  ConstantOfShape: constantOfShape,
  Range: range,
  ReduceProd: reduce(mulDims, 1),
  ReduceSum: reduce(addDims, 0),
  ReduceMax: reduce(maxDims, undefined),
  ReduceMin: reduce(minDims, undefined),
  NonZero: nonZero,
  CumSum: cumSum,
  ScatterND: scatterNd,
};
