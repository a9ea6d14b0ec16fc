/** Adapters with random parameters, so that no test passes because a factor is zero. */
import { type AdapterRecord, allParams } from '../../passes/adapter-record.js';
import { initTensor, normal } from '../../src/initializer.js';
import type { Model } from '../../src/model.js';
import type { Tensor } from '../../src/tensor.js';
import { isFloat } from '../../src/types.js';

/**
 * A value for every parameter of a record: normal, scaled so that an update is a visible fraction of a unit weight.
 * Integers (indices) keep the values that they have in `model`.
 */
export function randomParameters(
  record: AdapterRecord,
  model?: Model,
  { seed = 1, std = 0.3 } = {},
): Map<string, Tensor> {
  const stored = new Map([...(model?.graph.initializers ?? [])].map((value) => [value.name, value.tensor]));
  const tensors = new Map<string, Tensor>();
  for (const { key, name, shape, dtype } of allParams(record)) {
    const kept = isFloat(dtype) ? undefined : stored.get(name);
    // A row of factors scales what matrices give: at a fraction, little would be left of it.
    const spread = shape.length === 2 && shape[0] === 1 ? 2 * std : std;
    tensors.set(key, kept ?? initTensor(normal(spread), dtype, shape, seed, key));
  }
  return tensors;
}
