/** Batches for training tests, made from what a manifest declares. */

import type { TrainArtifacts } from '../../runtime/artifacts.js';
import { type HostTensor, tensorOfNumbers } from '../../runtime/host-tensor.js';

/**
 * Two rows of six tokens, the second padded by two: masked, and ignored in labels. `draw(i, below)` gives element i, a
 * whole number from 0 and less than `below`.
 */
export function tokenBatch(
  { manifest }: TrainArtifacts,
  draw: (i: number, below: number) => number,
): Record<string, HostTensor> {
  return Object.fromEntries(
    manifest.batch.map(({ name, dtype, shape, role }) => {
      const dims = shape.map((dim, axis) => (typeof dim === 'number' ? dim : [2, 6][axis]!));
      const count = dims.reduce((n, d) => n * d, 1);
      const [, length = 1] = dims;
      const below = /type/.test(name) || (role === 'label' && dims.length === 1) ? 2 : 30;
      const values = Array.from({ length: count }, (_, i) => {
        const padded = i >= length && i % length >= length - 2;
        if (/mask/.test(name)) return padded ? 0 : 1;
        return role === 'label' && dims.length > 1 && padded ? -100 : draw(i, below);
      });
      return [name, tensorOfNumbers(dtype, dims, values)];
    }),
  );
}
