import type { Tensor } from '../../src/tensor.js';
import { loadTensor, numbersOf } from '../host-tensor.js';

/** Elements of a tensor, row-major. */
export async function numbersBehind(tensor: Tensor): Promise<Float64Array> {
  return Float64Array.from(numbersOf(await loadTensor(tensor)));
}
