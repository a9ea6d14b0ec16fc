/** Stored tensors of a model as inputs of formulas. */
import { payloadOf } from '../../passes/sites/index.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';

/** A stored tensor in the dtype of the computation. */
export async function operand(value: Value, dtype: 'float32' | 'float64' = 'float32'): Promise<HostTensor> {
  const tensor = payloadOf(value);
  if (tensor === undefined)
    return fail('E_INVALID_GRAPH', { message: 'The weight of a site holds no numbers', where: value.label });
  const loaded = await loadTensor(tensor);
  return tensorOfNumbers(dtype, loaded.dims, numbersOf(loaded));
}
