/** Adapters with random numbers to be combined, and what is fed to the models and read from them. */
import type ort from 'onnxruntime-node';
import type { InsertEntry } from '../../passes/insert/entry.js';
import { attachAdapter } from '../../passes/insert/insert.js';
import type { AdapterFile } from '../../runtime/adapter-file.js';
import { numbersOf } from '../../runtime/host-tensor.js';
import { insert } from '../../runtime/library/insert.js';
import { inputSymbols, randomInputs } from '../../runtime/random-inputs.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { int64 } from '../targets/driver.js';
import { randomParameters } from './adapters.js';
import type { Feeds } from './run.js';

export interface Made {
  readonly file: AdapterFile;
  /** The base with this adapter alone. */
  readonly alone: Model;
}

/** An adapter with random parameters; frozen tensors are what insertion with `frozenSeed` makes them. */
export async function adapterOn(
  path: string,
  seed: number,
  entries: readonly InsertEntry[],
  frozenSeed = seed,
): Promise<Made> {
  const inserted = readModel(path);
  const { record } = await insert(inserted, { entries, seed: frozenSeed });
  const stored = new Map([...inserted.graph.initializers].map((value) => [value.name, value.tensor]));
  const tensors = randomParameters(record, inserted, { seed });
  for (const { params } of record.sites)
    for (const { key, name, trainable } of Object.values(params)) {
      const tensor = stored.get(name);
      if (!trainable && tensor !== undefined) tensors.set(key, tensor);
    }
  const alone = readModel(path);
  attachAdapter(alone, record, tensors);
  return { file: { record, tensors, digest: `${seed}` }, alone };
}

export const lora = (rank: number, targets: readonly string[], more: object = {}): InsertEntry => ({
  method: 'lora',
  config: { rank, alpha: 5, ...more },
  targeting: { targets: [...targets] },
});

/** Random integers for all inputs: `batch` rows of five tokens where sizes are free, padded. */
export function tokensFor(model: Model, batch: number): Feeds {
  const sizes = Object.fromEntries(
    [...inputSymbols(model)].map((symbol, i) => [symbol, i === 0 ? batch : 5]),
  );
  const inputs = randomInputs(model, { seed: 3, sizes, padded: true });
  return Object.fromEntries(
    Object.entries(inputs).map(([name, tensor]) => [
      name,
      int64(Array.from(numbersOf(tensor) as ArrayLike<number>), tensor.dims),
    ]),
  );
}

/** Rows that feeds have. */
export function rowsIn(feeds: Feeds): number {
  const [first] = Object.values(feeds) as ort.Tensor[];
  return first?.dims[0] ?? 0;
}

/** Largest difference in units of the largest of `a`. */
export function difference(a: readonly number[], b: readonly number[]): number {
  const scale = Math.max(...a.map(Math.abs));
  return Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? Number.NaN)))) / scale;
}
