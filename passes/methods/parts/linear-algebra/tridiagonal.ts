/** Eigenvalues of symmetric tridiagonal matrices by QL steps with implicit shifts (Dubrulle, Martin and Wilkinson). */

/** An eigenvalue, and the last entry of its unit eigenvector (up to sign). */
export interface LastEntry {
  readonly value: number;
  readonly last: number;
}

/**
 * All eigenvalues, largest first. Only the last row of the eigenvectors is accumulated, which costs O(n²) instead of
 * O(n³). `beside` has one entry less than `diagonal`.
 */
export function tridiagonalEigenvalues(diagonal: readonly number[], beside: readonly number[]): LastEntry[] {
  const size = diagonal.length;
  const d = Float64Array.from(diagonal);
  const e = new Float64Array(size);
  e.set(beside);
  const row = new Float64Array(size);
  row[size - 1] = 1;
  for (let low = 0; low < size; low++)
    for (let high = deflated(d, e, low); high > low; high = deflated(d, e, low)) sweep(d, e, row, low, high);
  return Array.from(d, (value, i) => ({ value, last: row[i]! })).sort((a, b) => b.value - a.value);
}

/** The end of the block that begins at `low`: behind it the matrix has fallen apart. */
function deflated(d: Float64Array, e: Float64Array, low: number): number {
  let high = low;
  while (high < d.length - 1) {
    const scale = Math.abs(d[high]!) + Math.abs(d[high + 1]!);
    if (Math.abs(e[high]!) <= Number.EPSILON * scale) break;
    high++;
  }
  return high;
}

/** One QL step on the block [low, high]: the shift comes from its first 2 × 2, rotations chase it from the end. */
function sweep(d: Float64Array, e: Float64Array, row: Float64Array, low: number, high: number): void {
  const ratio = (d[low + 1]! - d[low]!) / (2 * e[low]!);
  const radius = Math.hypot(ratio, 1);
  let g = d[high]! - d[low]! + e[low]! / (ratio + (ratio < 0 ? -radius : radius));
  let sine = 1;
  let cosine = 1;
  let p = 0;
  for (let i = high - 1; i >= low; i--) {
    const f = sine * e[i]!;
    const b = cosine * e[i]!;
    const r = Math.hypot(f, g);
    e[i + 1] = r;
    if (r === 0) {
      // The block falls apart in the middle of the chase.
      d[i + 1] = d[i + 1]! - p;
      e[high] = 0;
      return;
    }
    sine = f / r;
    cosine = g / r;
    g = d[i + 1]! - p;
    const t = (d[i]! - g) * sine + 2 * cosine * b;
    p = sine * t;
    d[i + 1] = g + p;
    g = cosine * t - b;
    const next = row[i + 1]!;
    row[i + 1] = sine * row[i]! + cosine * next;
    row[i] = cosine * row[i]! - sine * next;
  }
  d[low] = d[low]! - p;
  e[low] = g;
  e[high] = 0;
}
