/** Packed bytes as the typed arrays that onnxruntime-web takes. */
import type { Tensor, TensorConstructor } from 'onnxruntime-common';
import { fail } from '../../src/errors.js';
import type { HostTensor } from '../host-tensor.js';

type View = (buffer: ArrayBuffer) => Tensor.DataType;

const VIEWS: Readonly<Record<string, View>> = {
  float32: (buffer) => new Float32Array(buffer),
  float64: (buffer) => new Float64Array(buffer),
  float16: (buffer) => new Uint16Array(buffer),
  int8: (buffer) => new Int8Array(buffer),
  uint8: (buffer) => new Uint8Array(buffer),
  int16: (buffer) => new Int16Array(buffer),
  uint16: (buffer) => new Uint16Array(buffer),
  int32: (buffer) => new Int32Array(buffer),
  uint32: (buffer) => new Uint32Array(buffer),
  int64: (buffer) => new BigInt64Array(buffer),
  uint64: (buffer) => new BigUint64Array(buffer),
  bool: (buffer) => new Uint8Array(buffer),
};

/** Throws E_UNSUPPORTED for an element type that JavaScript runtimes do not take. */
export function ortTensor(make: TensorConstructor, { dtype, dims, data }: HostTensor): Tensor {
  const view = VIEWS[dtype];
  if (view === undefined)
    return fail('E_UNSUPPORTED', {
      message: `Tensors of ${dtype} cannot be fed in a browser`,
      remedy: 'Export the model with float32 inputs',
    });
  const bytes = new Uint8Array(data);
  return new make(dtype as Tensor.Type, view(bytes.buffer), dims);
}
