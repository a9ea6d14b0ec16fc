/** What is known of a value's tensor type. Undefined stands for everything unknown: no value, no tensor, no rank. */
import type { Value } from './graph.js';
import type { Dim, DType, Shape } from './types.js';

/** Dimensions, of a value whose rank is known. */
export function shapeOf(value: Value | null | undefined): Shape | undefined {
  return value?.type?.kind === 'tensor' ? (value.type.shape ?? undefined) : undefined;
}

/** Element type. */
export function dtypeOf(value: Value | null | undefined): DType | undefined {
  return value?.type?.kind === 'tensor' ? value.type.dtype : undefined;
}

/** Number of dimensions. */
export function rankOf(value: Value | null | undefined): number | undefined {
  return shapeOf(value)?.length;
}

/** Dimension `axis` where it is a number; negative axes count from the end. */
export function sizeAt(value: Value | null | undefined, axis: number): number | undefined {
  const dim: Dim | undefined = shapeOf(value)?.at(axis);
  return typeof dim === 'number' ? dim : undefined;
}
