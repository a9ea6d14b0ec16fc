/**
 * Daubechies' wavelets of extremal phase, by spectral factorisation (Daubechies 1992, chapter 6): the filter of order N has
 * N zeros at −1, and with `y = (2 − z − 1/z) / 4` one of every pair of zeros of `Σ_k C(N−1+k, k) yᵏ`, that in the unit circle.
 */

interface Complex {
  readonly re: number;
  readonly im: number;
}

const add = (a: Complex, b: Complex): Complex => ({ re: a.re + b.re, im: a.im + b.im });
const subtract = (a: Complex, b: Complex): Complex => ({ re: a.re - b.re, im: a.im - b.im });
const multiply = (a: Complex, b: Complex): Complex => ({
  re: a.re * b.re - a.im * b.im,
  im: a.re * b.im + a.im * b.re,
});
const absolute = ({ re, im }: Complex): number => Math.hypot(re, im);

function divide(a: Complex, b: Complex): Complex {
  const square = b.re * b.re + b.im * b.im;
  return { re: (a.re * b.re + a.im * b.im) / square, im: (a.im * b.re - a.re * b.im) / square };
}

function root({ re, im }: Complex): Complex {
  const length = Math.hypot(re, im);
  const real = Math.sqrt((length + re) / 2);
  return { re: real, im: (im < 0 ? -1 : 1) * Math.sqrt(Math.max(0, (length - re) / 2)) };
}

/** Largest order whose zeros are found to the digits that float32 has, and more. */
export const HIGHEST_ORDER = 10;

const ITERATIONS = 200;

/** The low-pass filter that reconstructs, [2·order], of sum √2; energy comes first. */
export function daubechies(order: number): number[] {
  const zeros: Complex[] = Array.from({ length: order }, () => ({ re: -1, im: 0 }));
  for (const y of zerosOf(binomials(order))) zeros.push(insideCircle(y));
  let filter: Complex[] = [{ re: 1, im: 0 }];
  for (const zero of zeros)
    filter = Array.from({ length: filter.length + 1 }, (_, i) =>
      subtract(filter[i] ?? { re: 0, im: 0 }, multiply(zero, filter[i - 1] ?? { re: 0, im: 0 })),
    );
  const real = filter.map(({ re }) => re);
  const sum = real.reduce((total, value) => total + value, 0);
  return real.map((value) => (value * Math.SQRT2) / sum);
}

/** The high-pass filter that goes with it. */
export function highPass(low: readonly number[]): number[] {
  return low.map((_, i) => (i % 2 === 0 ? 1 : -1) * (low[low.length - 1 - i] as number));
}

/** C(N − 1 + k, k) for k < N, lowest power first. */
function binomials(order: number): number[] {
  const values = [1];
  for (let k = 1; k < order; k++) values.push(((values[k - 1] as number) * (order - 1 + k)) / k);
  return values;
}

/** z² − (2 − 4y) z + 1 = 0: the zeros are each other's inverses. */
function insideCircle(y: Complex): Complex {
  const half = { re: 1 - 2 * y.re, im: -2 * y.im };
  const distance = root(subtract(multiply(half, half), { re: 1, im: 0 }));
  const [one, other] = [add(half, distance), subtract(half, distance)];
  return absolute(one) < absolute(other) ? one : other;
}

/** All zeros of a polynomial at once, by Weierstraß' iteration. */
function zerosOf(coefficients: readonly number[]): Complex[] {
  const degree = coefficients.length - 1;
  const leading = coefficients[degree] as number;
  const value = (x: Complex) =>
    coefficients.reduceRight((sum, c) => add(multiply(sum, x), { re: c / leading, im: 0 }), { re: 0, im: 0 });
  let zeros = Array.from({ length: degree }, (_, i): Complex => {
    const angle = (2 * Math.PI * i) / degree + 0.4;
    return { re: 0.6 * Math.cos(angle), im: 0.6 * Math.sin(angle) };
  });
  for (let step = 0; step < ITERATIONS; step++)
    zeros = zeros.map((zero, i) => {
      const others = zeros.reduce(
        (product, other, j) => (j === i ? product : multiply(product, subtract(zero, other))),
        { re: 1, im: 0 },
      );
      return subtract(zero, divide(value(zero), others));
    });
  return zeros;
}
