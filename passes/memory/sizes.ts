/** Bytes of the values of a graph, once its symbolic dimensions are given numbers. */

import { evaluateDim } from '../../src/dims.js';
import type { Graph, Value } from '../../src/graph.js';
import { byteSize, type Dim } from '../../src/types.js';

/** A number for every symbol: `{batch: 8, sequence: 128}`. */
export type DimSizes = ReadonlyMap<string, number>;

export class ValueSizes {
  readonly #sizes: DimSizes;
  readonly #bytes = new Map<Value, number | undefined>();

  constructor(sizes: DimSizes) {
    this.#sizes = sizes;
  }

  /** Bytes of a tensor; undefined where its rank or a dimension stays unknown, or it is no tensor. */
  bytes(value: Value): number | undefined {
    if (this.#bytes.has(value)) return this.#bytes.get(value);
    const bytes = this.#measure(value);
    this.#bytes.set(value, bytes);
    return bytes;
  }

  #measure(value: Value): number | undefined {
    const { type } = value;
    if (type?.kind !== 'tensor' || type.shape === null) return undefined;
    let count = 1;
    for (const dim of type.shape) {
      const size = this.#dim(dim);
      if (size === undefined) return undefined;
      count *= size;
    }
    return byteSize(type.dtype, count);
  }

  #dim(dim: Dim): number | undefined {
    return typeof dim === 'number' ? dim : evaluateDim(dim, this.#sizes);
  }
}

const NOMINAL_BATCH = 8;
const NOMINAL_LENGTH = 128;

/** Sizes to weigh values against each other with, where nobody gave any: 8 rows, every other symbol 128. */
export function nominalSizes(graph: Graph): DimSizes {
  const sizes = new Map<string, number>();
  for (const { type } of graph.inputs)
    if (type?.kind === 'tensor')
      for (const [axis, dim] of (type.shape ?? []).entries())
        if (typeof dim === 'string' && !sizes.has(dim))
          sizes.set(dim, axis === 0 ? NOMINAL_BATCH : NOMINAL_LENGTH);
  return sizes;
}
