/** Tensors whose elements are those of another, elsewhere: they are moved, never converted, whatever their dtype. */
import { byteSize, countOf } from '../src/types.js';
import type { HostTensor } from './host-tensor.js';

/** Views whose elements are as wide as those of a dtype. */
const VIEWS = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array } as const;

/** The elements as integers of their width. */
export function viewOf({ dtype, data }: HostTensor) {
  const width = byteSize(dtype, 1);
  const bytes = data.byteOffset % width === 0 ? data : data.slice();
  const View = VIEWS[width as keyof typeof VIEWS];
  return new View(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength / width);
}

/** A tensor whose element `i` is element `at(i)` of another, or zero where that is undefined. */
export function gathered(
  tensor: HostTensor,
  dims: readonly number[],
  at: (i: number) => number | undefined,
): HostTensor {
  const moved = {
    dtype: tensor.dtype,
    dims: [...dims],
    data: new Uint8Array(byteSize(tensor.dtype, countOf(dims))),
  };
  const from = viewOf(tensor);
  const to = viewOf(moved);
  for (let i = 0; i < to.length; i++) {
    const source = at(i);
    if (source !== undefined) to[i] = from[source] as never;
  }
  return moved;
}

export function transposed(tensor: HostTensor): HostTensor {
  const [rows = 1, columns = 1] = tensor.dims;
  const moved = { dtype: tensor.dtype, dims: [columns, rows], data: new Uint8Array(tensor.data.byteLength) };
  const from = viewOf(tensor);
  const to = viewOf(moved);
  for (let column = 0, i = 0; column < columns; column++)
    for (let row = 0; row < rows; row++, i++) to[i] = from[row * columns + column] as never;
  return moved;
}
