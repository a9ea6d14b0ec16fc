/**
 * From a tensor as it is stored or consumed to the matrix or vector a method reasons about and back, as ops: the one
 * place that turns a layout into Reshape, Transpose, Mul and Slice. Used on values of the model (weight form) and in
 * fold formulas.
 */
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { countOf } from '../../src/types.js';
import { shapeOf } from '../../src/value-type.js';
import { payloadOf } from './payload.js';
import type { ColumnRange, SiteBias, WeightView } from './site.js';

/** How a tensor holds a matrix [rows, columns]. */
export interface MatrixLayout {
  /** Dimensions of the tensor; its row-major payload is the matrix or its transpose. */
  readonly dims: readonly number[];
  /** True when the payload is [columns, rows]. */
  readonly transposed: boolean;
  /** The site's matrix is this range of the tensor's columns. */
  readonly range?: ColumnRange;
  /** The tensor holds `count` matrices along its first axis, of which this is number `index`. */
  readonly slice?: WeightView['slice'];
  /** The site's matrix is the tensor times this factor. */
  readonly scale: number;
  /** Rows of the matrix: `in` of a linear, `vocab` of an embedding. */
  readonly rows: number;
  /** Columns of the whole tensor, outside the range too. */
  readonly columns: number;
}

/** Layout of the initializer: what a fold reads and writes. */
export function storedLayout(weight: WeightView, rows: number): MatrixLayout {
  return layout(weight, rows, storedDims(weight.value), weight.transposed);
}

/** Layout of the value the op reads: what the weight form replaces. */
export function consumedLayout(weight: WeightView, rows: number): MatrixLayout {
  return layout(weight, rows, consumedDims(weight.consumed), weight.consumedTransposed);
}

function layout(
  { columns: range, slice, scale }: WeightView,
  rows: number,
  dims: readonly number[],
  transposed: boolean,
): MatrixLayout {
  const columns = countOf(dims) / rows / (slice?.count ?? 1);
  return {
    dims,
    transposed,
    scale,
    rows,
    columns,
    ...(range === undefined ? {} : { range }),
    ...(slice === undefined ? {} : { slice }),
  };
}

/** The site's matrix [rows, range of columns] of a tensor in `layout`. */
export function toMatrix(op: Ops, tensor: Value, { range, scale, ...whole }: MatrixLayout): Value {
  let w = wholeMatrix(op, tensor, whole);
  if (range !== undefined) w = op.Slice(w, [range.start], [range.end], [1]);
  return scale === 1 ? w : op.Mul(w, scale);
}

/** Inverse of `toMatrix`: the tensor with a new matrix in it; columns outside the range are those of `tensor`. */
export function fromMatrix(op: Ops, matrix: Value, tensor: Value, layout: MatrixLayout): Value {
  const { dims, transposed, range, slice, scale, columns } = layout;
  let w = scale === 1 ? matrix : op.Div(matrix, scale);
  if (range !== undefined) w = within(op, w, () => wholeMatrix(op, tensor, layout), range, columns, 1);
  if (transposed) w = op.Transpose(w, { perm: [1, 0] });
  if (slice !== undefined) {
    const [start, end] = [slice.index, slice.index + 1];
    return within(op, op.Unsqueeze(w, [0]), () => tensor, { start, end }, slice.count, 0);
  }
  return dims.length === 2 ? w : op.Reshape(w, dims);
}

function wholeMatrix(
  op: Ops,
  tensor: Value,
  { dims, transposed, rows, columns, slice }: Omit<MatrixLayout, 'range' | 'scale'>,
): Value {
  const flat =
    slice !== undefined
      ? op.Squeeze(op.Slice(tensor, [slice.index], [slice.index + 1], [0]), [0])
      : dims.length === 2
        ? tensor
        : op.Reshape(tensor, transposed ? [columns, rows] : [rows, columns]);
  return transposed ? op.Transpose(flat, { perm: [1, 0] }) : flat;
}

/** How a tensor holds a vector: all axes but one have size 1. */
export interface VectorLayout {
  readonly dims: readonly number[];
  readonly range?: ColumnRange;
  readonly scale: number;
  /** Entries of the whole tensor. */
  readonly length: number;
}

export function storedVector(vector: SiteBias): VectorLayout {
  return vectorLayout(vector, storedDims(vector.value));
}

export function consumedVector(vector: SiteBias): VectorLayout {
  return vectorLayout(vector, consumedDims(vector.node.input(vector.input)));
}

function vectorLayout({ columns: range, scale }: SiteBias, dims: readonly number[]): VectorLayout {
  const length = countOf(dims);
  return { dims, scale, length, ...(range === undefined ? {} : { range }) };
}

/** The site's vector of a tensor in `layout`. */
export function toVector(op: Ops, tensor: Value, { dims, range, scale, length }: VectorLayout): Value {
  let b = dims.length === 1 ? tensor : op.Reshape(tensor, [length]);
  if (range !== undefined) b = op.Slice(b, [range.start], [range.end], [0]);
  return scale === 1 ? b : op.Mul(b, scale);
}

/** Inverse of `toVector`. */
export function fromVector(
  op: Ops,
  vector: Value,
  tensor: Value,
  { dims, range, scale, length }: VectorLayout,
): Value {
  let b = scale === 1 ? vector : op.Div(vector, scale);
  const whole = () => (dims.length === 1 ? tensor : op.Reshape(tensor, [length]));
  if (range !== undefined) b = within(op, b, whole, range, length, 0);
  return dims.length === 1 ? b : op.Reshape(b, dims);
}

/** A part put back among what lies before and behind it on `axis`. */
function within(
  op: Ops,
  part: Value,
  whole: () => Value,
  { start, end }: ColumnRange,
  size: number,
  axis: number,
): Value {
  if (end - start === size) return part;
  const all = whole();
  const parts = [part];
  if (start > 0) parts.unshift(op.Slice(all, [0], [start], [axis]));
  if (end < size) parts.push(op.Slice(all, [end], [size], [axis]));
  return op.Concat(parts, { axis });
}

function storedDims(value: Value): readonly number[] {
  return (
    payloadOf(value)?.dims ??
    fail('E_INVALID_GRAPH', { message: 'The weight of a site holds no numbers', where: value.label })
  );
}

function consumedDims(value: Value): readonly number[] {
  const shape = shapeOf(value);
  if (shape === undefined || !shape.every((dim) => typeof dim === 'number'))
    return fail('E_TYPE', { message: 'The weight of a site has no known shape', where: value.label });
  return shape;
}
