/** Packed bytes as the typed arrays that onnxruntime-web takes. */
import type { Tensor, TensorConstructor } from 'onnxruntime-common';
import { fail } from '../../src/errors.js';
import type { HostTensor } from '../host-tensor.js';
import { hasArray, typedArray } from '../typed-arrays.js';

/** Throws E_UNSUPPORTED for an element type that JavaScript runtimes do not take. */
export function ortTensor(make: TensorConstructor, { dtype, dims, data }: HostTensor): Tensor {
  if (!hasArray(dtype))
    return fail('E_UNSUPPORTED', {
      message: `Tensors of ${dtype} cannot be fed in a browser`,
      remedy: 'Export the model with float32 inputs',
    });
  return new make(dtype, typedArray(dtype, new Uint8Array(data)), dims);
}
