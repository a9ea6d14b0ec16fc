/**
 * The largest singular values of a matrix with their vectors. Small matrices are decomposed completely; of large ones,
 * Golub–Kahan–Lanczos bidiagonalisation with full reorthogonalisation finds a subspace that holds the wanted vectors, and
 * grows it until their residuals vanish. Deterministic: the start vector has a fixed seed, and the largest entry of every
 * right vector is positive.
 */
import { fillNormal, randomStream } from '../../../../src/initializer.js';
import type { HostArray } from '../../contract/derived.js';
import { dot, jacobiSvd } from './jacobi.js';
import { tridiagonalEigenvalues } from './tridiagonal.js';

/** W ≈ left · diag(values) · right. */
export interface Svd {
  /** U, [rows, rank] row-major. */
  readonly left: Float64Array;
  /** Longest first. */
  readonly values: Float64Array;
  /** Vᵀ, [rank, columns] row-major. */
  readonly right: Float64Array;
}

/** Singular triplets by vector. */
interface Triplets {
  readonly left: readonly Float64Array[];
  readonly values: Float64Array;
  readonly right: readonly Float64Array[];
}

/** Matrices with a smaller side than this are decomposed completely. */
const SMALL = 128;
/** Largest residual ‖Wᵀu − σv‖ over the largest singular value. */
const TOLERANCE = 1e-9;
/** Steps between looks at the residuals. */
const CHECK_EVERY = 8;

/** The `rank` largest singular triplets of a matrix [rows, columns]; `rank` is at most its smaller side. */
export function truncatedSvd({ dims, data }: HostArray, rank: number): Svd {
  const [rows = 0, columns = 0] = dims;
  const matrix = new Matrix(data, rows, columns);
  const smaller = Math.min(rows, columns);
  const find = smaller <= SMALL || 3 * rank > smaller ? complete : lanczos;
  return pack(find(matrix, rank), rank, rows, columns);
}

/** A row-major matrix that vectors are multiplied with from both sides. */
class Matrix {
  constructor(
    readonly data: Float64Array,
    readonly rows: number,
    readonly columns: number,
  ) {}

  /** W x. */
  times(x: Float64Array): Float64Array {
    const { data, rows, columns } = this;
    const y = new Float64Array(rows);
    for (let i = 0, at = 0; i < rows; i++) {
      let sum = 0;
      for (let j = 0; j < columns; j++) sum += data[at++]! * x[j]!;
      y[i] = sum;
    }
    return y;
  }

  /** Wᵀ y. */
  transposedTimes(y: Float64Array): Float64Array {
    const { data, rows, columns } = this;
    const x = new Float64Array(columns);
    for (let i = 0, at = 0; i < rows; i++) {
      const factor = y[i]!;
      for (let j = 0; j < columns; j++) x[j] = x[j]! + data[at++]! * factor;
    }
    return x;
  }

  column(j: number): Float64Array {
    return Float64Array.from({ length: this.rows }, (_, i) => this.data[i * this.columns + j]!);
  }

  row(i: number): Float64Array {
    return this.data.slice(i * this.columns, (i + 1) * this.columns);
  }
}

function complete(matrix: Matrix): Triplets {
  const { rows, columns } = matrix;
  const wide = columns > rows;
  // The side with fewer vectors is rotated.
  const {
    columns: scaled,
    right,
    values,
  } = jacobiSvd(
    Array.from({ length: Math.min(rows, columns) }, (_, i) => (wide ? matrix.row(i) : matrix.column(i))),
  );
  const units = unitVectors(scaled, values);
  return wide ? { left: right, values, right: units } : { left: units, values, right };
}

/** The columns divided by their lengths; null vectors become any that are orthogonal to the rest. */
function unitVectors(columns: readonly Float64Array[], lengths: Float64Array): Float64Array[] {
  const floor = (lengths[0] ?? 0) * 1e-14;
  const units: Float64Array[] = [];
  for (const [i, column] of columns.entries()) {
    const length = lengths[i]!;
    units.push(length > floor ? scaled(column, 1 / length) : freshVector(column.length, units));
  }
  return units;
}

/** W = P B Qᵀ with B upper bidiagonal, a row and a column at a time. The side with fewer vectors is exhausted first. */
function lanczos(matrix: Matrix, rank: number): Triplets {
  const into = (x: Float64Array) => matrix.times(x);
  const back = (y: Float64Array) => matrix.transposedTimes(y);
  if (matrix.rows >= matrix.columns) return bidiagonalise(into, back, matrix.columns, rank);
  const { left, values, right } = bidiagonalise(back, into, matrix.rows, rank);
  return { left: right, values, right: left };
}

type Product = (vector: Float64Array) => Float64Array;

/** `times` takes vectors of `columns` entries to others, no fewer; `transposed` takes them back. */
function bidiagonalise(times: Product, transposed: Product, columns: number, rank: number): Triplets {
  const lefts: Float64Array[] = [];
  const rights: Float64Array[] = [freshVector(columns, [])];
  const diagonal: number[] = [];
  const above: number[] = [];
  for (let size = 1; ; size++) {
    const p = times(rights[size - 1]!);
    diagonal.push(normalised(p, lefts));
    lefts.push(p);
    const q = transposed(p);
    const next = size < columns ? normalised(q, rights) : 0;
    const due = size >= 2 * rank && size % CHECK_EVERY === 0;
    if (size === columns || (due && converged(diagonal, above, next, rank))) {
      const { left, values, right } = bidiagonalSvd(diagonal, above);
      return {
        left: left.slice(0, rank).map((u) => combined(lefts, u)),
        values,
        right: right.slice(0, rank).map((v) => combined(rights, v)),
      };
    }
    above.push(next);
    rights.push(q);
  }
}

/**
 * Whether the residuals of the wanted triplets, next·|last entry of u|, are small. With B v = σ u that entry is
 * (last of the diagonal)·(last entry of v) / σ, and v are the eigenvectors of the tridiagonal Bᵀ B.
 */
function converged(
  diagonal: readonly number[],
  above: readonly number[],
  next: number,
  rank: number,
): boolean {
  const square = diagonal.map((value, i) => value * value + (i === 0 ? 0 : above[i - 1]! ** 2));
  const beside = above.map((value, i) => value * diagonal[i]!);
  const eigen = tridiagonalEigenvalues(square, beside);
  const first = Math.sqrt(Math.max(0, eigen[0]!.value));
  const corner = diagonal[diagonal.length - 1]!;
  return eigen.slice(0, rank).every(({ value, last }) => {
    const sigma = Math.sqrt(Math.max(0, value));
    const entry = sigma === 0 ? 1 : Math.min(1, Math.abs((corner * last) / sigma));
    return next * entry <= TOLERANCE * first;
  });
}

/** Makes `vector` a unit vector orthogonal to `others`; returns its length, 0 where it was a combination of them. */
function normalised(vector: Float64Array, others: readonly Float64Array[]): number {
  const before = Math.sqrt(dot(vector, vector));
  const after = project(vector, others);
  if (after <= before * 1e-12) {
    vector.set(freshVector(vector.length, others));
    return 0;
  }
  for (let i = 0; i < vector.length; i++) vector[i] = vector[i]! / after;
  return after;
}

/** A unit vector orthogonal to `others`, the same at every call. */
function freshVector(length: number, others: readonly Float64Array[]): Float64Array {
  const random = randomStream(0, `vector ${others.length}`);
  for (;;) {
    const vector = new Float64Array(length);
    fillNormal(vector, random);
    const left = project(vector, others);
    // What remains of a vector among nearly all others is rounding: draw again.
    if (left > 1e-8) return scaled(vector, 1 / left);
  }
}

/** Removes the parts along `others` from `vector`; returns the length that remains. */
function project(vector: Float64Array, others: readonly Float64Array[]): number {
  const before = Math.sqrt(dot(vector, vector));
  for (let pass = 0; ; pass++) {
    for (const other of others) addScaled(vector, other, -dot(vector, other));
    const after = Math.sqrt(dot(vector, vector));
    // What cancelled left rounding behind: once more, and twice is enough (Kahan).
    if (pass > 0 || after > 0.7 * before) return after;
  }
}

function bidiagonalSvd(diagonal: readonly number[], above: readonly number[]): Triplets {
  const size = diagonal.length;
  const columns = diagonal.map((value, j) => {
    const column = new Float64Array(size);
    column[j] = value;
    if (j > 0) column[j - 1] = above[j - 1]!;
    return column;
  });
  const { columns: product, right, values } = jacobiSvd(columns);
  return { left: unitVectors(product, values), values, right };
}

function combined(vectors: readonly Float64Array[], weights: Float64Array): Float64Array {
  const sum = new Float64Array(vectors[0]!.length);
  for (const [i, weight] of weights.entries()) addScaled(sum, vectors[i]!, weight);
  return sum;
}

function addScaled(target: Float64Array, vector: Float64Array, factor: number): void {
  for (let i = 0; i < target.length; i++) target[i] = target[i]! + factor * vector[i]!;
}

function scaled(vector: Float64Array, factor: number): Float64Array {
  return vector.map((entry) => entry * factor);
}

/** The first `rank` triplets as matrices, signs fixed. */
function pack({ left, values, right }: Triplets, rank: number, rows: number, columns: number): Svd {
  const packed = {
    left: new Float64Array(rows * rank),
    values: values.slice(0, rank),
    right: new Float64Array(rank * columns),
  };
  for (let k = 0; k < rank; k++) {
    const u = left[k]!;
    const v = right[k]!;
    const sign = signOfLargest(v);
    for (let i = 0; i < rows; i++) packed.left[i * rank + k] = sign * u[i]!;
    for (let j = 0; j < columns; j++) packed.right[k * columns + j] = sign * v[j]!;
  }
  return packed;
}

function signOfLargest(vector: Float64Array): number {
  let largest = 0;
  for (const entry of vector) if (Math.abs(entry) > Math.abs(largest) * (1 + 1e-9)) largest = entry;
  return largest < 0 ? -1 : 1;
}
