import { describe, expect, it } from 'vitest';
import { once } from '../../passes/methods/parts/linear-algebra/once.js';
import { tridiagonalEigenvalues } from '../../passes/methods/parts/linear-algebra/tridiagonal.js';
import { type Svd, truncatedSvd } from '../../passes/methods/parts/linear-algebra/truncated-svd.js';
import { fillNormal, randomStream } from '../../src/initializer.js';

/** A matrix with the given singular values and random vectors: Σ σ u vᵀ over random orthogonal u and v. */
function random(rows: number, columns: number, seed = 1): Float64Array {
  const data = new Float64Array(rows * columns);
  fillNormal(data, randomStream(seed, 'matrix'));
  return data;
}

const product = (a: ArrayLike<number>, b: ArrayLike<number>, rows: number, inner: number, columns: number) =>
  Float64Array.from({ length: rows * columns }, (_, at) => {
    const i = Math.floor(at / columns);
    const j = at % columns;
    let sum = 0;
    for (let k = 0; k < inner; k++) sum += a[i * inner + k]! * b[k * columns + j]!;
    return sum;
  });
const transpose = (a: ArrayLike<number>, rows: number, columns: number) =>
  Float64Array.from({ length: rows * columns }, (_, at) => a[(at % rows) * columns + Math.floor(at / rows)]!);
const largest = (a: Float64Array) => a.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
const identity = (n: number) => Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0));
const minus = (a: Float64Array, b: Float64Array) => a.map((v, i) => v - b[i]!);

/** Errors of a decomposition: orthogonality of both factors, and W v = σ u, Wᵀ u = σ v. */
function errors({ left, values, right }: Svd, data: Float64Array, rows: number, columns: number) {
  const rank = values.length;
  const scaled = left.map((v, i) => v * values[i % rank]!);
  return {
    left: largest(minus(product(transpose(left, rows, rank), left, rank, rows, rank), identity(rank))),
    right: largest(
      minus(product(right, transpose(right, rank, columns), rank, columns, rank), identity(rank)),
    ),
    into: largest(minus(product(data, transpose(right, rank, columns), rows, columns, rank), scaled)),
    back: largest(
      minus(
        product(transpose(data, rows, columns), left, columns, rows, rank),
        transpose(
          right.map((v, i) => v * values[Math.floor(i / columns)]!),
          rank,
          columns,
        ),
      ),
    ),
  };
}

describe('truncated singular value decomposition', () => {
  // The last four are decomposed by bidiagonalisation.
  it.each([
    [12, 7, 7],
    [7, 12, 7],
    [40, 40, 5],
    [200, 150, 8],
    [150, 200, 8],
    [300, 300, 20],
    [131, 400, 1],
  ])('of a random %i × %i matrix, rank %i', (rows, columns, rank) => {
    const data = random(rows, columns);
    const svd = truncatedSvd({ dims: [rows, columns], data }, rank);
    for (const error of Object.values(errors(svd, data, rows, columns))) expect(error).toBeLessThan(1e-8);
    expect([...svd.values]).toEqual([...svd.values].sort((a, b) => b - a));
  });

  it('reproduces the matrix at full rank', () => {
    const data = random(9, 6);
    const { left, values, right } = truncatedSvd({ dims: [9, 6], data }, 6);
    const scaled = left.map((v, i) => v * values[i % 6]!);
    expect(largest(minus(product(scaled, right, 9, 6, 6), data))).toBeLessThan(1e-12);
  });

  it('finds the largest values, not just some', () => {
    const data = random(180, 160);
    const all = truncatedSvd({ dims: [180, 160], data }, 160);
    const some = truncatedSvd({ dims: [180, 160], data }, 6);
    for (let k = 0; k < 6; k++) expect(some.values[k]! / all.values[k]!).toBeCloseTo(1, 10);
    expect(largest(minus(some.right, all.right.slice(0, 6 * 160)))).toBeLessThan(1e-7);
  });

  it.each([
    [30, 20],
    [200, 140],
  ])('copes with a %i × %i matrix of rank 2', (rows, columns) => {
    const data = product(random(rows, 2), random(2, columns, 2), rows, 2, columns);
    const svd = truncatedSvd({ dims: [rows, columns], data }, 4);
    expect(svd.values[2]! / svd.values[0]!).toBeLessThan(1e-12);
    for (const error of Object.values(errors(svd, data, rows, columns))) expect(error).toBeLessThan(1e-8);
  });

  it('copes with zeros', () => {
    const { left, values, right } = truncatedSvd({ dims: [150, 140], data: new Float64Array(21000) }, 3);
    expect([...values]).toEqual([0, 0, 0]);
    expect(largest(minus(product(transpose(left, 150, 3), left, 3, 150, 3), identity(3)))).toBeLessThan(
      1e-10,
    );
    expect(right.every(Number.isFinite)).toBe(true);
  });

  it('fixes signs by the largest entry of every right vector', () => {
    const data = random(8, 10);
    const plus = truncatedSvd({ dims: [8, 10], data }, 4);
    const turned = truncatedSvd({ dims: [8, 10], data: data.map((v) => -v) }, 4);
    for (let k = 0; k < 4; k++) {
      const row = [...plus.right.slice(k * 10, k * 10 + 10)];
      expect(Math.max(...row)).toBeCloseTo(Math.max(...row.map(Math.abs)), 12);
    }
    expect(largest(minus(turned.right, plus.right))).toBeLessThan(1e-10);
    expect(
      largest(
        minus(
          turned.left,
          plus.left.map((v) => -v),
        ),
      ),
    ).toBeLessThan(1e-10);
  });
});

it('finds the eigenvalues of tridiagonal matrices and the last entries of their vectors', () => {
  // 2 on the diagonal and -1 beside it: values 2 - 2 cos(k π / (n + 1)), vectors sin(i k π / (n + 1)).
  const n = 12;
  const found = tridiagonalEigenvalues(new Array(n).fill(2), new Array(n - 1).fill(-1));
  for (const [i, { value, last }] of found.entries()) {
    const angle = ((n - i) * Math.PI) / (n + 1);
    expect(value).toBeCloseTo(2 - 2 * Math.cos(angle), 12);
    expect(Math.abs(last)).toBeCloseTo(Math.abs(Math.sin(n * angle)) * Math.sqrt(2 / (n + 1)), 12);
  }
  // In two parts that do not touch.
  const parts = tridiagonalEigenvalues([3, 0, 1, 5], [0, 0, 0]);
  expect(parts.map(({ value, last }) => [value, Math.abs(last)])).toEqual([
    [5, 1],
    [3, 0],
    [1, 0],
    [0, 0],
  ]);
});

it('computes once for the same matrix and rank', () => {
  let calls = 0;
  const sum = once(({ data }, rank) => {
    calls++;
    return data.reduce((a, b) => a + b, 0) * rank;
  });
  const matrix = (data: number[]) => ({ dims: [1, data.length], data: Float64Array.from(data) });
  expect(sum(matrix([1, 2]), 1)).toBe(3);
  expect(sum(matrix([1, 2]), 1)).toBe(3);
  expect(calls).toBe(1);
  expect(sum(matrix([1, 3]), 1)).toBe(4);
  expect(sum(matrix([1, 3]), 2)).toBe(8);
  expect(calls).toBe(3);
});
