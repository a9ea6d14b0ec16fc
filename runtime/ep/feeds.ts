/** Tensors between the dtypes that a model declares and those that its form for a device takes. */
import { fail } from '../../src/errors.js';
import { type HostTensor, numbersOf } from '../host-tensor.js';
import type { TensorInfo, Tensors } from '../session.js';

/**
 * Feeds in the dtypes of the session: int64 becomes int32 where the session takes that, everything else passes.
 * @throws E_INVALID_DATA for a number beyond 32 bits.
 */
export function fitFeeds(inputs: readonly TensorInfo[], feeds: Tensors): Record<string, HostTensor> {
  const wanted = new Map(inputs.map(({ name, dtype }) => [name, dtype]));
  return Object.fromEntries(
    Object.entries(feeds).map(([name, tensor]) => [
      name,
      tensor.dtype === 'int64' && wanted.get(name) === 'int32' ? narrowed(name, tensor) : tensor,
    ]),
  );
}

/** An output in the dtype that the model declares. */
export function fitOutput(tensor: HostTensor, dtype: HostTensor['dtype']): HostTensor {
  if (tensor.dtype !== 'int32' || dtype !== 'int64') return tensor;
  const wide = BigInt64Array.from(numbersOf(tensor), BigInt);
  return { dtype, dims: tensor.dims, data: new Uint8Array(wide.buffer) };
}

function narrowed(name: string, tensor: HostTensor): HostTensor {
  const numbers = numbersOf(tensor);
  const narrow = Int32Array.from(numbers);
  const at = narrow.findIndex((number, i) => number !== numbers[i]);
  if (at >= 0)
    fail('E_INVALID_DATA', {
      message: `Input '${name}' holds ${numbers[at]}, and the device has 32-bit integers only`,
      remedy: 'Check the data, or use another execution provider.',
    });
  return { dtype: 'int32', dims: tensor.dims, data: new Uint8Array(narrow.buffer) };
}
