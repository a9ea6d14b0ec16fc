/** Low-rank factors that are put together from vectors of a bank. */
import type { Value } from '../../../src/graph.js';
import { uniform } from '../../../src/initializer.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { LinearDims } from '../../sites/views.js';
import type { ParamSpec } from '../contract/method.js';

export interface Pieces {
  readonly rank: number;
  readonly vectorLength: number;
}

/** Vectors of a bank [vectors, length] and their weights: `indices` and `weights` [..., k]. */
export interface Mixture {
  readonly indices: Value;
  readonly weights: Value;
}

/** The bank that all modules share, uniform within ± `bound` at the start. */
export function bankOf(vectors: number, length: number, bound = 0.02): ParamSpec {
  return { shape: [vectors, length], init: uniform(bound), key: 'vblora_vector_bank', group: 'vectors' };
}

/** How many pieces each factor has: A is [rank, in / length] of them, B [out / length, rank]. */
export function pieceCounts(
  { inDim, outDim }: LinearDims,
  { rank, vectorLength }: Pieces,
): { readonly A: readonly [number, number]; readonly B: readonly [number, number] } {
  return { A: [rank, inDim / vectorLength], B: [outDim / vectorLength, rank] };
}

/** A as [in, rank]. */
export function intoRank(op: Ops, bank: Value, mixture: Mixture, { inDim }: LinearDims, rank: number): Value {
  return op.Transpose(op.Reshape(mixed(op, bank, mixture), [rank, inDim]), { perm: [1, 0] });
}

/** B as [rank, out]: the pieces of a row of B stand at [out / length, row]. */
export function outOfRank(
  op: Ops,
  bank: Value,
  mixture: Mixture,
  { outDim }: LinearDims,
  rank: number,
): Value {
  const rows = op.Transpose(mixed(op, bank, mixture), { perm: [1, 0, 2] });
  return op.Reshape(rows, [rank, outDim]);
}

/** Σ_k weights_k · bank[indices_k], [..., length]. */
function mixed(op: Ops, bank: Value, { indices, weights }: Mixture): Value {
  return op.ReduceSum(op.Mul(op.Gather(bank, indices), op.Unsqueeze(weights, [3])), [2], { keepdims: 0 });
}

/** Why the sizes of a module cannot be cut into pieces. */
export function indivisible({ inDim, outDim }: LinearDims, vectorLength: number): string | undefined {
  if (inDim % vectorLength === 0 && outDim % vectorLength === 0) return undefined;
  return `${inDim} × ${outDim} cannot be cut into vectors of ${vectorLength}; set vectorLength to a divisor of ${gcd(inDim, outDim)}, or exclude it`;
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
