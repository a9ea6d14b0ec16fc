/** Ranges of tensors in host memory. */
import { byteSize, countOf } from '../../src/types.js';
import type { HostTensor } from '../host-tensor.js';

/** A copy of `[start, start + count)` along an axis; elements are whole bytes. */
export function sliceAxis(
  { dtype, dims, data }: HostTensor,
  axis: number,
  start: number,
  count: number,
): HostTensor {
  const outer = countOf(dims.slice(0, axis));
  const inner = byteSize(dtype, countOf(dims.slice(axis + 1)));
  const size = dims[axis] ?? 1;
  const bytes = new Uint8Array(outer * count * inner);
  for (let i = 0; i < outer; i++) {
    const from = (i * size + start) * inner;
    bytes.set(data.subarray(from, from + count * inner), i * count * inner);
  }
  return { dtype, dims: dims.map((dim, i) => (i === axis ? count : dim)), data: bytes };
}
