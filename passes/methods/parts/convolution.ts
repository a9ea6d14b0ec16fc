/**
 * Convolutions as methods see them: linears over patches, whose inputs are channels × window. PEFT keeps the window as
 * axes of its own: what it makes of the shapes of a linear, [.., in] and [out, ..], and updates that know the window.
 */
import { z } from 'zod';
import type { Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import { countOf } from '../../../src/types.js';
import type { LinearDims } from '../../sites/views.js';

type Shape = readonly number[];

/** The setting of methods that decompose a convolution in two ways. */
export const effective = z
  .boolean()
  .default(false)
  .describe(
    'Decompose convolutions whose window has several entries by output, input and window, instead of as a matrix (PEFT use_effective_conv2d)',
  );

/** [.., channels × window] as [.., channels, window…]. */
export function overWindow(shape: Shape, window: Shape): Shape {
  return [...shape.slice(0, -1), (shape.at(-1) ?? 0) / countOf(window), ...window];
}

/** [..] with an axis of size 1 for each of the window. */
export function besideWindow(shape: Shape, window: Shape): Shape {
  return [...shape, ...window.map(() => 1)];
}

/** [n], [1, n] or [n, 1] as [1, n, 1…]. */
export function acrossChannels(shape: Shape, window: Shape): Shape {
  return besideWindow([1, countOf(shape)], window);
}

/** [n, 1] as [1, n]. */
export function asRow(shape: Shape): Shape {
  return [1, countOf(shape)];
}

/** Entries of the window; 1 where there is none. */
export function windowSize({ window }: Pick<LinearDims, 'window'>): number {
  return window === undefined ? 1 : countOf(window);
}

/** Whether a module is a convolution whose window has more than one entry. */
export function hasWindow(site: Pick<LinearDims, 'window'>): boolean {
  return site.window !== undefined && windowSize(site) > 1;
}

/** Shape of the core of a Tucker product of rank r, as PEFT keeps it: two axes for the window at least. */
export function coreShape(rank: number, window: Shape = []): number[] {
  return [rank, rank, ...window, ...(window.length === 1 ? [1] : [])];
}

/**
 * The product of a core [r, r, window…] with factors a [out, r] and b [channels, r], as a matrix:
 * `M[c·K + k, o] = Σ_ij core[i, j, k] a[o, i] b[c, j]`, K entries of the window.
 */
export function tucker(
  op: Ops,
  { core, a, b }: { readonly core: Value; readonly a: Value; readonly b: Value },
  { rank, size, channels, out }: Readonly<Record<'rank' | 'size' | 'channels' | 'out', number>>,
): Value {
  const outs = op.Reshape(op.MatMul(a, op.Reshape(core, [rank, rank * size])), [out, rank, size]);
  // [out, r, K] → [out, K, r] → [out, K, channels] → [channels, K, out]
  const both = op.MatMul(op.Transpose(outs, { perm: [0, 2, 1] }), op.Transpose(b, { perm: [1, 0] }));
  return op.Reshape(op.Transpose(both, { perm: [2, 1, 0] }), [channels * size, out]);
}
