/** Row-major n-dimensional indexing for small contents. */
import { countOf, type Dim } from '../../types.js';
import { CONTENTS_LIMIT, type Contents } from '../contents.js';

export function stridesOf(dims: readonly number[]): number[] {
  const strides = new Array<number>(dims.length);
  let stride = 1;
  for (let axis = dims.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= dims[axis]!;
  }
  return strides;
}

/** Contents of shape `dims` whose element at an index is given by `at`; undefined when too many. */
export function generate(
  dims: readonly number[],
  at: (index: readonly number[]) => Dim | undefined,
): Contents | undefined {
  const count = countOf(dims);
  if (count > CONTENTS_LIMIT) return undefined;
  const index = new Array<number>(dims.length).fill(0);
  const items = new Array<Dim>(count);
  for (let i = 0; i < count; i++) {
    items[i] = at(index) ?? null;
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      index[axis]!++;
      if (index[axis]! < dims[axis]!) break;
      index[axis] = 0;
    }
  }
  return { dims, items };
}

/** Element of `contents` at an index, broadcasting axes of size 1 and missing leading axes. */
export function broadcastAt(contents: Contents): (index: readonly number[]) => Dim {
  const strides = stridesOf(contents.dims);
  return (index) => {
    const skip = index.length - contents.dims.length;
    let offset = 0;
    for (let axis = 0; axis < contents.dims.length; axis++)
      if (contents.dims[axis] !== 1) offset += index[axis + skip]! * strides[axis]!;
    return contents.items[offset] ?? null;
  };
}

/** Element at a linear offset given by index and strides. */
export function at(contents: Contents): (index: readonly number[]) => Dim {
  const strides = stridesOf(contents.dims);
  return (index) => contents.items[index.reduce((sum, i, axis) => sum + i * strides[axis]!, 0)] ?? null;
}

/** Broadcast shape of numeric shapes; undefined when they do not broadcast. */
export function broadcastNumeric(shapes: readonly (readonly number[])[]): number[] | undefined {
  const rank = Math.max(0, ...shapes.map((s) => s.length));
  const out = new Array<number>(rank).fill(1);
  for (const shape of shapes)
    for (let axis = 0; axis < shape.length; axis++) {
      const to = axis + rank - shape.length;
      const dim = shape[axis]!;
      if (dim === 1) continue;
      if (out[to] !== 1 && out[to] !== dim) return undefined;
      out[to] = dim;
    }
  return out;
}
