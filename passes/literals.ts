/** Small constant tensors from numbers, and back. */
import { fail } from '../src/errors.js';
import { type Tensor, tensorOfBytes } from '../src/tensor.js';
import type { DType } from '../src/types.js';

/** An int32 vector. */
export function int32Vector(values: readonly number[]): Tensor {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setInt32(4 * i, value, true);
  return tensorOfBytes('int32', [values.length], bytes);
}

/** A float32 or float64 vector. */
export function floatVector(values: readonly number[], dtype: DType): Tensor {
  const size = dtype === 'float64' ? 8 : 4;
  if (size === 4 && dtype !== 'float32')
    fail('E_UNSUPPORTED', { message: `Constants of ${dtype} are not made here` });
  const bytes = new Uint8Array(values.length * size);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries())
    if (size === 8) view.setFloat64(8 * i, value, true);
    else view.setFloat32(4 * i, value, true);
  return tensorOfBytes(dtype, [values.length], bytes);
}

/** The number in a one-element float32 or float64 constant; undefined for anything else. */
export function readNumber(tensor: Tensor | undefined): number | undefined {
  const bytes = tensor?.data.inline;
  if (tensor === undefined || bytes === undefined) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (tensor.dtype === 'float32' && bytes.byteLength === 4) return view.getFloat32(0, true);
  if (tensor.dtype === 'float64' && bytes.byteLength === 8) return view.getFloat64(0, true);
  return undefined;
}
