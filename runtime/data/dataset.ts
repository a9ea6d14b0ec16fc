/** Examples: named tensors without a batch axis, and where each came from. */
import { type Random, randomStream } from '../../src/initializer.js';

export type Values = Int32Array | Float32Array | Float64Array;

export interface ExampleTensor {
  readonly dims: readonly number[];
  /** Row-major elements. */
  readonly values: ArrayLike<number>;
}

export interface Example {
  readonly tensors: ReadonlyMap<string, ExampleTensor>;
  /** `file:line` or `file, example 7`, for messages. */
  readonly where: string;
}

export interface Dataset {
  /** File the data came from. */
  readonly source: string;
  readonly length: number;
  example(index: number): Example;
  /** Names of classes, where labels were given as text; the label is the index. */
  readonly classes?: readonly string[];
}

/** Some of the examples of a data set, in the given order. */
export function subset(dataset: Dataset, indices: readonly number[]): Dataset {
  return {
    source: dataset.source,
    length: indices.length,
    example: (index) => dataset.example(indices[index] ?? -1),
    ...(dataset.classes === undefined ? {} : { classes: dataset.classes }),
  };
}

/**
 * A seeded split into training and held-out examples. At least one example stays on either side when there are two;
 * both sides keep the order of the file.
 */
export function splitDataset(
  dataset: Dataset,
  fraction: number,
  seed: number,
): { train: Dataset; held: Dataset } {
  const count = Math.min(
    Math.max(Math.round(dataset.length * fraction), fraction > 0 ? 1 : 0),
    dataset.length - 1,
  );
  const order = permutation(dataset.length, randomStream(seed, 'split'));
  const held = order.slice(0, Math.max(count, 0)).sort((a, b) => a - b);
  const train = order.slice(Math.max(count, 0)).sort((a, b) => a - b);
  return { train: subset(dataset, [...train]), held: subset(dataset, [...held]) };
}

/** Order of the examples in an epoch: a function of seed and epoch only, so that a run can resume anywhere. */
export function epochOrder(length: number, seed: number, epoch: number, shuffle: boolean): Uint32Array {
  return shuffle
    ? permutation(length, randomStream(seed, `shuffle/${epoch}`))
    : Uint32Array.from({ length }, (_, i) => i);
}

/** Fisher–Yates. */
function permutation(length: number, random: Random): Uint32Array {
  const order = Uint32Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const swap = order[i] ?? 0;
    order[i] = order[j] ?? 0;
    order[j] = swap;
  }
  return order;
}

/** Compact storage of integers where they fit, of doubles otherwise. */
export function compact(values: readonly number[]): Values {
  const ints = Int32Array.from(values);
  return ints.every((value, i) => value === values[i]) ? ints : Float64Array.from(values);
}
