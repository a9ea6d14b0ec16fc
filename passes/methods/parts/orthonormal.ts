/** The leading part of a QR decomposition, by Gram and Schmidt with a second pass. */
import type { HostArray } from '../contract/derived.js';

/**
 * Of w [rows, columns] with `wᵀ = Q R`: `left` = w Q_r [rows, r] and `right` = Q_rᵀ [r, columns]. Q_r spans the first r
 * rows of w; signs of its columns cancel in the product.
 */
export function leadingRows(
  { dims, data }: HostArray,
  rank: number,
): { readonly left: Float64Array; readonly right: Float64Array } {
  const [rows = 0, columns = 0] = dims;
  const right = new Float64Array(rank * columns);
  for (let k = 0; k < rank; k++) {
    const row = data.slice(k * columns, (k + 1) * columns);
    for (let pass = 0; pass < 2; pass++)
      for (let other = 0; other < k; other++) {
        const unit = right.subarray(other * columns, (other + 1) * columns);
        const share = dot(row, unit);
        for (let i = 0; i < columns; i++) row[i]! -= share * unit[i]!;
      }
    const length = Math.sqrt(dot(row, row));
    right.set(
      row.map((value) => value / length),
      k * columns,
    );
  }
  const left = new Float64Array(rows * rank);
  for (let i = 0; i < rows; i++)
    for (let k = 0; k < rank; k++)
      left[i * rank + k] = dot(
        data.subarray(i * columns, (i + 1) * columns),
        right.subarray(k * columns, (k + 1) * columns),
      );
  return { left, right };
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
