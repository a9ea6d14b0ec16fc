/** The one rounding of a fold: computed numbers to the dtype they are stored in, to nearest, ties to even. */
import { narrow } from '../../src/halves.js';
import { encodeNumbers } from '../../src/literals.js';
import type { DType } from '../../src/types.js';

export type Floats = Float32Array | Float64Array;

function viewOf(array: Floats | Uint16Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Storage bytes of computed numbers. */
export function roundTo(dtype: DType, values: Floats): Uint8Array {
  if (values instanceof Float32Array) {
    if (dtype === 'float32') return viewOf(values);
    if (dtype === 'float16' || dtype === 'bfloat16') return viewOf(narrow(dtype, values));
  }
  return encodeNumbers(dtype, values);
}
