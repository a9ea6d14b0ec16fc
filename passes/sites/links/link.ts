/**
 * Links: ops that may stand between a stored weight and the op that reads it. A link says what it does to dims, element
 * type and storage; `passes/sites/weight.ts` walks chains of them without knowing which op it has.
 */
import type { Node } from '../../../src/graph.js';
import type { DType } from '../../../src/types.js';
import type { WeightStorage } from '../site.js';

export interface Link {
  /** Qualified names of the operators, e.g. `Transpose`, `com.microsoft.DequantizeLinear`. */
  readonly ops: readonly string[];
  /** Dims of the output for those of input 0; undefined when they cannot be known from constants. */
  dims(node: Node, input: readonly number[]): readonly number[] | undefined;
  /** `perm[i]` is the input axis that becomes output axis i; absent when the elements keep their order. */
  permutation?(node: Node, rank: number): readonly number[];
  /** Element type of the output; absent when that of the input. */
  dtype?(node: Node): DType | undefined;
  /** What a payload becomes when it has to be read through this op; absent when it stays what it is. */
  readonly storage?: WeightStorage;
}
