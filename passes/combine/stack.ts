/** Tensors of one shape as one tensor with a new first axis, without a copy: the parts are read when it is written. */
import type { Tensor } from '../../src/tensor.js';

export function stackTensors(tensors: readonly Tensor[]): Tensor {
  const [first] = tensors as [Tensor];
  const size = first.data.byteLength;
  const read = (offset: number, length: number): Uint8Array => {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; ) {
      const from = offset + at;
      const part = (tensors[Math.floor(from / size)] as Tensor).data;
      const count = Math.min(size - (from % size), length - at);
      bytes.set(part.read(from % size, count), at);
      at += count;
    }
    return bytes;
  };
  return {
    dtype: first.dtype,
    dims: [tensors.length, ...first.dims],
    data: { byteLength: size * tensors.length, read },
  };
}

/** Zeros in the type and shape of a tensor. */
export function zerosLike({ dtype, dims, data: { byteLength } }: Tensor): Tensor {
  return { dtype, dims, data: { byteLength, read: (_offset, length) => new Uint8Array(length) } };
}
