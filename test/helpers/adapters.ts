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
    tensors.set(key, kept ?? initTensor(normal(std), dtype, shape, seed, key));
  }
  return tensors;
}
