/** Adapted fixtures with random adapters, and batches for them. */
import ort from 'onnxruntime-node';
import { readAdapterRecord } from '../../passes/adapter-record.js';
import { insert } from '../../passes/insert/insert.js';
import type { BatchInput } from '../../passes/targets/manifest.js';
import { randomStream } from '../../src/initializer.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import type { Batch } from '../targets/driver.js';

export const LORA = { method: 'lora', config: { rank: 3, alpha: 5 } } as const;

/** A fixture with an adapter whose parameters are random, so that no factor is zero. */
export async function adapted(
  fixture: { readonly path: string },
  settings: Parameters<typeof insert>[1],
): Promise<Model> {
  const model = readModel(fixture.path);
  insert(model, settings);
  const record = readAdapterRecord(model);
  const values = randomParameters(record, model, { std: 0.1 });
  const names = new Map(
    record.sites.flatMap(({ params }) => Object.values(params)).map((p) => [p.name, p.key]),
  );
  for (const value of model.graph.initializers) {
    const tensor = values.get(names.get(value.name ?? '') ?? '');
    if (tensor !== undefined) value.tensor = tensor;
  }
  return model;
}

/** Rows of a fixture with a fixed shape. */
const ROWS = 4;
const TOKENS = 12;
const VOCAB = 60;

/** Random tokens with a ragged mask; labels of the padding do not count. */
export function batch(inputs: readonly BatchInput[], seed: number): Batch {
  const random = randomStream(seed, 'batch');
  const lengths = Array.from({ length: ROWS }, () => TOKENS - Math.floor(random() * 5));
  const tensors = inputs.map(({ name, dtype, shape, role }) => {
    const dims = shape.map((dim, axis) => (typeof dim === 'number' ? dim : axis === 0 ? ROWS : TOKENS));
    const count = dims.reduce((product, dim) => product * dim, 1);
    const values = Array.from({ length: count }, (_, i) => {
      const padding = dims.length === 2 && i % TOKENS >= lengths[Math.floor(i / TOKENS)]!;
      if (/mask/.test(name)) return padding ? 0 : 1;
      if (/type/.test(name)) return i % 2;
      if (role === 'label' && dims.length === 1) return Math.floor(random() * 3);
      if (padding) return role === 'label' ? -100 : 0;
      return 2 + Math.floor(random() * VOCAB);
    });
    if (dtype !== 'int64') throw new Error(`no batch for ${dtype}`);
    return [name, new ort.Tensor('int64', BigInt64Array.from(values, BigInt), dims)] as const;
  });
  return Object.fromEntries(tensors);
}
