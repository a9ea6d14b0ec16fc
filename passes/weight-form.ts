/**
 * From a weight as it is stored or consumed to the matrix a method reasons about and back, as ops: the one place that
 * turns a layout into Reshape, Transpose, Mul and Slice. Used on values of the model (weight form) and in fold formulas.
 */
import { fail } from '../src/errors.js';
import type { Value } from '../src/graph.js';
import type { Ops } from '../src/ops/ops.generated.js';
import { payloadOf } from './sites/payload.js';
import type { ColumnRange, Site } from './sites/site.js';
import { rowsOf } from './sites/views.js';

/** How a tensor holds a matrix [rows, columns]. */
export interface MatrixLayout {
  /** Dimensions of the tensor; its row-major payload is the matrix or its transpose. */
  readonly dims: readonly number[];
  /** True when the payload is [columns, rows]. */
  readonly transposed: boolean;
  /** The site's matrix is this range of the tensor's columns. */
  readonly range?: ColumnRange;
  /** The site's matrix is the tensor times this factor. */
  readonly scale: number;
  /** Rows of the matrix: `in` of a linear, `vocab` of an embedding. */
  readonly rows: number;
  /** Columns of the whole tensor, outside the range too. */
  readonly columns: number;
}

/** Layout of the initializer: what a fold reads and writes. */
export function storedLayout(site: Site): MatrixLayout {
  const { value, transposed } = site.weight;
  const dims =
    payloadOf(value)?.dims ??
    fail('E_INVALID_GRAPH', { message: 'The weight of a site holds no numbers', where: value.label });
  return layout(site, dims, transposed);
}

/** Layout of the value the op reads: what the weight form replaces. */
export function consumedLayout(site: Site): MatrixLayout {
  const { consumed, consumedTransposed } = site.weight;
  const shape = consumed.type?.kind === 'tensor' ? consumed.type.shape : null;
  if (shape === null || !shape.every((dim) => typeof dim === 'number'))
    return fail('E_TYPE', { message: 'The weight of a site has no known shape', where: consumed.label });
  return layout(site, shape, consumedTransposed);
}

function layout(site: Site, dims: readonly number[], transposed: boolean): MatrixLayout {
  const { columns: range, scale } = site.weight;
  const rows = rowsOf(site);
  const columns = dims.reduce((product, dim) => product * dim, 1) / rows;
  return { dims, transposed, scale, rows, columns, ...(range === undefined ? {} : { range }) };
}

/** The site's matrix [rows, range of columns] of a tensor in `layout`. */
export function toMatrix(op: Ops, tensor: Value, { range, scale, ...whole }: MatrixLayout): Value {
  let w = wholeMatrix(op, tensor, whole);
  if (range !== undefined) w = op.Slice(w, [range.start], [range.end], [1]);
  return scale === 1 ? w : op.Mul(w, scale);
}

/** Inverse of `toMatrix`: the tensor with a new matrix in it; columns outside the range are those of `tensor`. */
export function fromMatrix(op: Ops, matrix: Value, tensor: Value, layout: MatrixLayout): Value {
  const { dims, transposed, range, scale, columns } = layout;
  let w = scale === 1 ? matrix : op.Div(matrix, scale);
  if (range !== undefined && range.end - range.start < columns) {
    const { start, end } = range;
    const all = wholeMatrix(op, tensor, layout);
    const parts = [w];
    if (start > 0) parts.unshift(op.Slice(all, [0], [start], [1]));
    if (end < columns) parts.push(op.Slice(all, [end], [columns], [1]));
    w = op.Concat(parts, { axis: 1 });
  }
  if (transposed) w = op.Transpose(w, { perm: [1, 0] });
  return dims.length === 2 ? w : op.Reshape(w, dims);
}

function wholeMatrix(
  op: Ops,
  tensor: Value,
  { dims, transposed, rows, columns }: Omit<MatrixLayout, 'range' | 'scale'>,
): Value {
  const flat =
    dims.length === 2 ? tensor : op.Reshape(tensor, transposed ? [columns, rows] : [rows, columns]);
  return transposed ? op.Transpose(flat, { perm: [1, 0] }) : flat;
}
