/** Shape helpers that rules share. */
import { broadcastDims, sameDim } from '../dims.js';
import type { Dim, Shape } from '../types.js';
import type { Call } from './call.js';

/** Numpy broadcasting of two shapes; null when a rank is unknown. `E_TYPE` when two numbers disagree. */
export function broadcastShapes(call: Call, a: Shape | null, b: Shape | null): Shape | null {
  if (a === null || b === null) return null;
  const rank = Math.max(a.length, b.length);
  const out: Dim[] = new Array<Dim>(rank);
  for (let i = 0; i < rank; i++) {
    const x = a[i - rank + a.length] ?? (i < rank - a.length ? 1 : null);
    const y = b[i - rank + b.length] ?? (i < rank - b.length ? 1 : null);
    if (typeof x === 'number' && typeof y === 'number' && x !== y && x !== 1 && y !== 1)
      call.error(`Shapes [${a.join(', ')}] and [${b.join(', ')}] do not broadcast`);
    out[i] = broadcastDims(x, y);
  }
  return out;
}

/** The dimension that two operands must agree on: the one that says more. `E_TYPE` when two numbers disagree. */
export function unifyDims(call: Call, a: Dim, b: Dim, what: string): Dim {
  if (a === null) return b;
  if (b === null) return a;
  if (typeof a === 'number' && typeof b === 'number' && a !== b) call.error(`${what} ${a} and ${b} differ`);
  return typeof b === 'number' && !sameDim(a, b) ? b : a;
}

/** Batched matrix product of [..., m, k] and [..., k, n], 1-D operands as numpy has them. */
export function matmulShape(call: Call, a: Shape | null, b: Shape | null): Shape | null {
  if (a === null || b === null) return null;
  if (a.length === 0 || b.length === 0) call.error('MatMul of a scalar');
  const left = a.length === 1 ? [1, ...a] : a;
  const right = b.length === 1 ? [...b, 1] : b;
  unifyDims(call, left.at(-1)!, right.at(-2)!, 'Inner dimensions');
  const batch = broadcastShapes(call, left.slice(0, -2), right.slice(0, -2))!;
  return [...batch, ...(a.length === 1 ? [] : [left.at(-2)!]), ...(b.length === 1 ? [] : [right.at(-1)!])];
}

/** `shape` with one dimension replaced. */
export function withDim(shape: Shape, axis: number, dim: Dim): Shape {
  const out = [...shape];
  out[axis] = dim;
  return out;
}
