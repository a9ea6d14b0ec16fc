/** Low-rank factors that are put together from vectors of a bank. */
import { z } from 'zod';
import type { Value } from '../../../src/graph.js';
import { uniform } from '../../../src/initializer.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { LinearDims } from '../../sites/views.js';
import type { ParamSpec } from '../contract/method.js';
import { numberOf } from '../contract/peft-format.js';

/** Settings of the bank and of the factors, as both forms have them. */
export const pieceSettings = {
  rank: z.int().min(1).default(4).describe('Inner dimension r of the update'),
  vectors: z.int().min(1).default(256).describe('Vectors in the bank'),
  vectorLength: z
    .int()
    .min(1)
    .default(256)
    .describe('Length of the vectors; divides the sizes of the modules'),
  topk: z.int().min(1).default(2).describe('Vectors that each piece mixes'),
};

type PieceSettings = z.output<z.ZodObject<typeof pieceSettings>>;

/** The settings in PEFT's adapter_config.json, there and back. */
export function settingsOfPeft(config: Readonly<Record<string, unknown>>): PieceSettings {
  return {
    rank: numberOf(config, 'r', 4),
    vectors: numberOf(config, 'num_vectors', 256),
    vectorLength: numberOf(config, 'vector_length', 256),
    topk: numberOf(config, 'topk', 2),
  };
}

export function peftOfSettings({ rank, vectors, vectorLength, topk }: Readonly<Record<string, unknown>>) {
  return { r: rank, num_vectors: vectors, vector_length: vectorLength, topk };
}

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
