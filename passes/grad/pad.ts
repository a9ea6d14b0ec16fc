/** Puts a block back to where it was cut out of one axis, with zeros around it. */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import type { Size } from './shapes.js';

/**
 * `value` along `axis` at offset `start` of an axis of size `total`. A negative start counts from the end, and starts
 * outside the axis are clamped, as in Slice.
 */
export function padAxis(c: GradientContext, value: Value, axis: number, start: number, total: Size): Value {
  const { op, shapes } = c;
  const rank = shapes.rank(value);
  const length = shapes.size(value, axis);
  const one = (size: Size) => shapes.vector([size]);
  let before: Size;
  if (typeof total === 'number') before = clamp(start < 0 ? start + total : start, total);
  else if (start === 0) before = 0;
  else if (start > 0) before = op.Min([one(start), total]);
  else before = op.Max([op.Add(total, one(start)), one(0)]);
  let after: Size;
  if (typeof total === 'number' && typeof length === 'number' && typeof before === 'number')
    after = total - before - length;
  else after = op.Sub(op.Sub(one(total), one(before)), one(length));
  if (before === 0 && after === 0) return value;
  const pads: Size[] = new Array<Size>(2 * rank).fill(0);
  pads[axis] = before;
  pads[rank + axis] = after;
  return op.Pad(value, shapes.vector(pads));
}

function clamp(position: number, total: number): number {
  return Math.min(Math.max(position, 0), total);
}
