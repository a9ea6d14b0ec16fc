import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addDims,
  boundsOf,
  broadcastDims,
  canonicalDim,
  ceilDivDims,
  divideDims,
  evaluateDim,
  floorDivDims,
  maxDims,
  minDims,
  modDims,
  mulDims,
  sameDim,
  subDims,
} from '../../src/dims.js';
import type { Dim } from '../../src/types.js';

const SYMBOLS = ['batch', 'seq', 'past'] as const;

/** An expression as the algebra builds it, with its value under sizes. */
interface Expression {
  readonly dim: Dim;
  readonly value: (sizes: readonly number[]) => number;
}

const leaf: fc.Arbitrary<Expression> = fc.oneof(
  fc.nat(2).map((i) => ({ dim: SYMBOLS[i]! as Dim, value: (sizes: readonly number[]) => sizes[i]! })),
  fc.integer({ min: -4, max: 9 }).map((n) => ({ dim: n as Dim, value: () => n })),
);

const OPERATIONS = [
  [addDims, (a: number, b: number) => a + b],
  [subDims, (a: number, b: number) => a - b],
  [mulDims, (a: number, b: number) => a * b],
  [minDims, Math.min],
  [maxDims, Math.max],
] as const;
const DIVISIONS = [
  [floorDivDims, (a: number, b: number) => Math.floor(a / b)],
  [modDims, (a: number, b: number) => a - b * Math.floor(a / b)],
  [ceilDivDims, (a: number, b: number) => Math.ceil(a / b)],
] as const;

const { expression } = fc.letrec<{ expression: Expression }>((tie) => ({
  expression: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf,
    fc.tuple(fc.nat(OPERATIONS.length - 1), tie('expression'), tie('expression')).map(([i, a, b]) => ({
      dim: OPERATIONS[i]![0](a.dim, b.dim),
      value: (sizes: readonly number[]) => OPERATIONS[i]![1](a.value(sizes), b.value(sizes)),
    })),
    fc
      .tuple(fc.nat(DIVISIONS.length - 1), tie('expression'), fc.integer({ min: 1, max: 6 }))
      .map(([i, a, n]) => ({
        dim: DIVISIONS[i]![0](a.dim, n),
        value: (sizes: readonly number[]) => DIVISIONS[i]![1](a.value(sizes), n),
      })),
  ),
}));
const sizes = fc.tuple(
  fc.integer({ min: 1, max: 12 }),
  fc.integer({ min: 1, max: 12 }),
  fc.integer({ min: 1, max: 12 }),
);

const evaluate = (dim: Dim, at: readonly number[]) =>
  evaluateDim(dim, new Map(SYMBOLS.map((name, i) => [name, at[i]!])));

describe('dimension algebra', () => {
  it('keeps the value of every expression', () => {
    fc.assert(
      fc.property(expression, sizes, ({ dim, value }, at) => {
        expect(evaluate(dim, at)).toBe(value(at) + 0);
      }),
      { numRuns: 1000 },
    );
  });

  it('has no negative zero', () => {
    expect(evaluate('-2*Mod(seq, 6)', [1, 6, 1])).toBe(0);
    expect(evaluate('floordiv(seq - 6, -4)', [1, 6, 1])).toBe(0);
    expect(floorDivDims(0, -4)).toBe(0);
    expect(evaluate('-(seq - 6)', [1, 6, 1])).toBe(0);
  });

  it('is canonical: order of sums and products does not matter, text parses to itself', () => {
    fc.assert(
      fc.property(expression, expression, expression, (a, b, c) => {
        expect(addDims(a.dim, b.dim)).toBe(addDims(b.dim, a.dim));
        expect(mulDims(a.dim, addDims(b.dim, c.dim))).toBe(
          addDims(mulDims(a.dim, b.dim), mulDims(a.dim, c.dim)),
        );
        expect(subDims(addDims(a.dim, b.dim), b.dim)).toBe(canonicalDim(a.dim));
        expect(canonicalDim(canonicalDim(a.dim))).toBe(canonicalDim(a.dim));
      }),
    );
  });

  it('bounds hold for all non-negative sizes', () => {
    fc.assert(
      fc.property(expression, sizes, ({ dim }, at) => {
        // Calls (Min, floordiv, …) are taken to be non-negative, like symbols.
        if (dim === null || /\(/.test(String(dim))) return;
        const { min, max } = boundsOf(dim);
        expect(evaluate(dim, at)).toBeGreaterThanOrEqual(min);
        expect(evaluate(dim, at)).toBeLessThanOrEqual(max);
      }),
    );
  });

  it.each([
    ['seq + past', 'past + seq'],
    ['past+seq', 'past + seq'],
    ['seq*batch', 'batch*seq'],
    ['(batch*seq)//seq', 'batch'],
    ['2*s0//2', 's0'],
    ['((s0 + 1)//2)', 'floordiv(s0 + 1, 2)'],
    ['s0**2 - s0*s0 + 3', 3],
    ['Max(1, s0)', 'Max(1, s0)'],
    ['Min(sequence, 40)', 'Min(40, sequence)'],
    ['floor(s0/4)', 'floordiv(s0, 4)'],
    ['Mod(8*s1, 4)', 0],
    ['batch size', 'batch size'],
    ['unk__12', 'unk__12'],
  ])('reads %s as %s', (text, expected) => {
    expect(canonicalDim(text)).toBe(expected);
  });

  it('reads sums that are canonical already as sums, not as symbols', () => {
    // Texts that no other test makes: what was made before is not read.
    expect(subDims('fresh + stale', 'stale')).toBe('fresh');
    expect(addDims('4*new', 'new')).toBe('5*new');
    expect(divideDims('rows*columns', 'rows')).toBe('columns');
    expect(divideDims('columns*width', 'width')).toBe('columns');
  });

  it('knows every expression after others have filled the memory', () => {
    const sum = addDims('p', addDims('q', -1));
    for (let i = 0; i < 60_000; i++) addDims('r', i);
    expect(addDims(sum, 1)).toBe('p + q');
    expect(subDims(sum, 'q')).toBe('p - 1');
  });

  it('divides products and sums exactly', () => {
    expect(divideDims('batch*seq*768', 'batch*seq')).toBe(768);
    expect(divideDims(mulDims('batch', addDims('past', 'seq')), addDims('seq', 'past'))).toBe('batch');
    expect(divideDims('batch', 'seq')).toBeNull();
  });

  it('broadcasts without claiming that different symbols are equal', () => {
    expect(broadcastDims('a', 'b')).toBe('broadcast(a, b)');
    expect(broadcastDims('broadcast(a, b)', 'b')).toBe('broadcast(a, b)');
    expect(broadcastDims('a', 1)).toBe('a');
    expect(broadcastDims('a', 8)).toBe(8);
    expect(broadcastDims('Min(1024, seq)', 'seq')).toBe('seq');
    expect(sameDim('a', 'b')).toBe(false);
    expect(sameDim(null, null)).toBe(false);
  });
});
