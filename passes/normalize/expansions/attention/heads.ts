/** Tokens and heads: [batch, tokens, heads·width] and [batch, heads, tokens, width]. */
import type { Value } from '../../../../src/graph.js';
import type { Shapes } from '../../../grad/shapes.js';
import { refuse } from '../../expansion.js';

/** A dimension that the formula needs as a number. */
export function known(shapes: Shapes, value: Value, axis: number, what: string): number {
  const dim = shapes.dim(value, axis);
  return typeof dim === 'number' ? dim : refuse(`${what} is not known before it runs (${value.label})`);
}

/** [batch, tokens, heads·width] → [batch, heads, tokens, width] */
export function split(shapes: Shapes, value: Value, heads: number): Value {
  const width = known(shapes, value, 2, 'the size of its heads') / heads;
  if (!Number.isInteger(width)) refuse(`${heads} heads do not divide its ${width * heads} columns`);
  const parts = shapes.b.op.Reshape(value, shapes.b.ints([0, 0, heads, width]));
  return shapes.b.op.Transpose(parts, { perm: [0, 2, 1, 3] });
}

/** [batch, heads, tokens, width] → [batch, tokens, heads·width] */
export function joined(shapes: Shapes, value: Value): Value {
  const { op } = shapes.b;
  const [heads, width] = [shapes.dim(value, 1), shapes.dim(value, 3)];
  const last = typeof heads === 'number' && typeof width === 'number' ? heads * width : -1;
  return op.Reshape(op.Transpose(value, { perm: [0, 2, 1, 3] }), shapes.b.ints([0, 0, last]));
}

/** Every key head serves `group` neighbouring query heads. */
export function repeated(shapes: Shapes, value: Value, group: number): Value {
  if (group === 1) return value;
  const { op } = shapes.b;
  const heads = known(shapes, value, 1, 'the number of its heads');
  const width = known(shapes, value, 3, 'the size of its heads');
  const wide = op.Expand(op.Unsqueeze(value, [2]), shapes.b.ints([1, 1, group, 1, 1]));
  return op.Reshape(wide, shapes.b.ints([0, heads * group, -1, width]));
}

/** Parts of the given widths along an axis. */
export function parted(shapes: Shapes, value: Value, widths: readonly number[], axis: number): Value[] {
  return [...shapes.b.op.Split(value, shapes.b.ints(widths), { axis }, widths.length)];
}

/** What came before, then what is new, along the tokens: [batch, heads, tokens, width]. */
export function grown(shapes: Shapes, past: Value | undefined, value: Value): Value {
  if (past === undefined || shapes.dim(past, 2) === 0) return value;
  return shapes.b.op.Concat([past, value], { axis: 2 });
}
