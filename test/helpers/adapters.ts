/** Adapters with random parameters, so that no test passes because a factor is zero. */
import type { AdapterRecord } from '../../passes/adapter-record.js';
import { initTensor, normal } from '../../src/initializer.js';
import type { Tensor } from '../../src/tensor.js';

/** A value for every parameter of a record: normal, scaled so that an update is a visible fraction of a unit weight. */
export function randomParameters(record: AdapterRecord, seed = 1, std = 0.3): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  for (const site of record.sites)
    for (const { key, shape, dtype } of Object.values(site.params))
      tensors.set(key, initTensor(normal(std), dtype, shape, seed, key));
  return tensors;
}
