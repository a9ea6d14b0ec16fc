/** Singular value decomposition of small matrices by one-sided Jacobi rotations (Hestenes). */

/** Columns of a matrix with at least as many rows as columns, turned into U Σ in place; V by columns. */
export interface Rotated {
  /** Columns of U Σ, sorted by length, longest first. */
  readonly columns: readonly Float64Array[];
  /** Columns of V in the same order. */
  readonly right: readonly Float64Array[];
  readonly values: Float64Array;
}

const MOST_SWEEPS = 60;
/** Cosine of the angle between two columns that count as orthogonal. */
const ORTHOGONAL = 1e-15;

/** Rotates pairs of columns until all are orthogonal: `A V = U Σ`. Takes over the arrays of `columns`. */
export function jacobiSvd(columns: readonly Float64Array[]): Rotated {
  const count = columns.length;
  const right = columns.map((_, i) => {
    const axis = new Float64Array(count);
    axis[i] = 1;
    return axis;
  });
  for (let sweep = 0, rotated = true; rotated && sweep < MOST_SWEEPS; sweep++) {
    rotated = false;
    for (let p = 0; p < count - 1; p++)
      for (let q = p + 1; q < count; q++)
        if (orthogonalise(columns[p]!, columns[q]!, right[p]!, right[q]!)) rotated = true;
  }
  const lengths = Float64Array.from(columns, (column) => Math.sqrt(dot(column, column)));
  const order = Array.from(lengths.keys()).sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  return {
    columns: order.map((i) => columns[i]!),
    right: order.map((i) => right[i]!),
    values: Float64Array.from(order, (i) => lengths[i]!),
  };
}

/** One rotation of the columns a and b, applied to V as well; false where they are orthogonal already. */
function orthogonalise(a: Float64Array, b: Float64Array, va: Float64Array, vb: Float64Array): boolean {
  const alpha = dot(a, a);
  const beta = dot(b, b);
  const gamma = dot(a, b);
  if (Math.abs(gamma) <= ORTHOGONAL * Math.sqrt(alpha * beta)) return false;
  const zeta = (beta - alpha) / (2 * gamma);
  const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
  const cosine = 1 / Math.hypot(1, tangent);
  const sine = cosine * tangent;
  rotate(a, b, cosine, sine);
  rotate(va, vb, cosine, sine);
  return true;
}

function rotate(a: Float64Array, b: Float64Array, cosine: number, sine: number): void {
  for (let i = 0; i < a.length; i++) {
    const x = a[i]!;
    const y = b[i]!;
    a[i] = cosine * x - sine * y;
    b[i] = sine * x + cosine * y;
  }
}

export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
