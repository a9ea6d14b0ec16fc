/** Activations with the features on another axis than the last (Conv, transposed Gemm), as formulas want them. */
import type { Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';

export function featuresLast(op: Ops, value: Value, axis: number): Value {
  const perm = axisLast(rankOf(value), axis);
  return perm === undefined ? value : op.Transpose(value, { perm });
}

export function featuresBack(op: Ops, value: Value, axis: number): Value {
  const perm = axisLast(rankOf(value), axis);
  return perm === undefined ? value : op.Transpose(value, { perm: inverse(perm) });
}

/** Permutation that moves `axis` to the end; undefined when it is there already. */
function axisLast(rank: number, axis: number): number[] | undefined {
  const at = axis < 0 ? axis + rank : axis;
  if (at === rank - 1) return undefined;
  return [...Array.from({ length: rank }, (_, i) => i).filter((i) => i !== at), at];
}

function inverse(perm: readonly number[]): number[] {
  const result = new Array<number>(perm.length).fill(0);
  perm.forEach((from, to) => {
    result[from] = to;
  });
  return result;
}

/** Rank of a value; an unknown rank is taken as one whose features are last. */
function rankOf(value: Value): number {
  return value.type?.kind === 'tensor' && value.type.shape !== null ? value.type.shape.length : 1;
}
