/** Transpose: the one link that changes the order of elements. */
import { intsAttribute } from '../../../src/attribute.js';
import type { Link } from './link.js';

/** `perm` of a Transpose; the default reverses all axes. */
function perm(node: Parameters<Link['dims']>[0], rank: number): readonly number[] {
  return intsAttribute(node, 'perm') ?? Array.from({ length: rank }, (_, axis) => rank - 1 - axis);
}

export const transpose: Link = {
  ops: ['Transpose'],
  dims: (node, input) => perm(node, input.length).map((axis) => input[axis] ?? 1),
  permutation: perm,
};
