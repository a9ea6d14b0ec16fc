/** Inverses of square matrices, by Gauss and Jordan with the largest pivot of a column. */

/** The inverse of a row-major matrix [size, size]; undefined where a pivot vanishes. */
export function inverse(matrix: Float64Array, size: number): Float64Array | undefined {
  const rest = matrix.slice();
  const made = new Float64Array(size * size);
  for (let i = 0; i < size; i++) made[i * size + i] = 1;
  for (let column = 0; column < size; column++) {
    const pivot = largestBelow(rest, size, column);
    const value = rest[pivot * size + column] as number;
    if (value === 0 || !Number.isFinite(value)) return undefined;
    for (const half of [rest, made]) {
      swapRows(half, size, pivot, column);
      scaleRow(half, size, column, 1 / value);
    }
    for (let row = 0; row < size; row++) {
      const factor = rest[row * size + column] as number;
      if (row === column || factor === 0) continue;
      for (const half of [rest, made]) addRow(half, size, row, column, -factor);
    }
  }
  return made;
}

function largestBelow(matrix: Float64Array, size: number, column: number): number {
  let best = column;
  for (let row = column; row < size; row++)
    if (Math.abs(matrix[row * size + column] as number) > Math.abs(matrix[best * size + column] as number))
      best = row;
  return best;
}

function swapRows(matrix: Float64Array, size: number, a: number, b: number): void {
  if (a === b) return;
  const kept = matrix.slice(a * size, (a + 1) * size);
  matrix.copyWithin(a * size, b * size, (b + 1) * size);
  matrix.set(kept, b * size);
}

function scaleRow(matrix: Float64Array, size: number, row: number, factor: number): void {
  const values = matrix.subarray(row * size, (row + 1) * size);
  for (let i = 0; i < size; i++) values[i] = (values[i] as number) * factor;
}

function addRow(matrix: Float64Array, size: number, to: number, from: number, factor: number): void {
  const target = matrix.subarray(to * size, (to + 1) * size);
  const source = matrix.subarray(from * size, (from + 1) * size);
  for (let i = 0; i < size; i++) target[i] = (target[i] as number) + factor * (source[i] as number);
}
