/** Batches of one size, for providers that compile a graph per size. */
import type { Shape } from '../../src/types.js';
import type { BatchInputSpec, Collator } from '../data/batch.js';
import type { Dataset } from '../data/dataset.js';
import { TOKEN_INPUTS } from '../data/standard-inputs.js';

/** Sizes to settle; absent ones stay free. */
export interface BatchExtent {
  readonly rows: number | undefined;
  readonly length: number | undefined;
}

/** The inputs with their batch axis and their token axis settled, wherever the same symbol stands. */
export function fixSizes(specs: readonly BatchInputSpec[], { rows, length }: BatchExtent): BatchInputSpec[] {
  const tokens = specs.find(({ name }) => TOKEN_INPUTS.includes(name));
  const reference = tokens ?? specs[0];
  const sizes = new Map<string, number>();
  const settle = (dim: Shape[number] | undefined, size: number | undefined) => {
    if (typeof dim === 'string' && size !== undefined) sizes.set(dim, size);
  };
  settle(reference?.shape[0], rows);
  settle(tokens?.shape[1], length);
  return specs.map((spec) => ({
    ...spec,
    shape: spec.shape.map((dim) => (typeof dim === 'string' ? (sizes.get(dim) ?? dim) : dim)),
  }));
}

/** Tokens of the longest example of all data. */
export function longestExample(collator: Collator, data: readonly Dataset[]): number {
  let longest = 1;
  for (const set of data)
    for (let i = 0; i < set.length; i++) longest = Math.max(longest, collator.tokensOf(set.example(i)));
  return longest;
}
