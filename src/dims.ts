/**
 * Arithmetic on dimensions. A symbolic dimension is text; sums and products are kept as polynomials over atoms, so
 * that equal expressions have equal text: `seq + past` and `past + seq` both read `past + seq`. Atoms are symbols and
 * calls such as `floordiv(a, b)`, `Mod(a, b)`, `Min(a, b)`, `Max(a, b)` and `broadcast(a, b)` (the one that is not 1)
 * that no rule could simplify. Unknown (`null`) in, unknown out. Symbols stand for any integer.
 */
import { parseExpression } from './dims-parse.js';
import type { Dim } from './types.js';

interface Term {
  /** Atoms in order, repeated for powers. */
  readonly factors: readonly string[];
  readonly coefficient: number;
}

/** Terms by the text of their atoms; '' is the constant term. No zero coefficients. */
export type Polynomial = ReadonlyMap<string, Term>;

type Known = number | string;

/**
 * Polynomials by text, in two generations, so that what was made a moment ago is never evicted: `polynomialOf` looks
 * up the text that it has just had made. An evicted text is parsed again.
 */
let young = new Map<string, Polynomial>();
let old: ReadonlyMap<string, Polynomial> = new Map();
const GENERATION = 25_000;

function remember(text: string, polynomial: Polynomial): void {
  if (young.size >= GENERATION) {
    old = young;
    young = new Map();
  }
  young.set(text, polynomial);
}

function recall(text: string): Polynomial | undefined {
  return young.get(text) ?? old.get(text);
}

function polynomialOf(dim: Known): Polynomial {
  if (typeof dim === 'number') return constant(dim);
  const known = recall(dim);
  if (known !== undefined) return known;
  const canonical = parseExpression(dim, OPERATIONS) ?? dim;
  // The parser's operations remember every sum and product that they make; a text that none of them made is an atom.
  const polynomial =
    typeof canonical === 'number' ? constant(canonical) : (recall(canonical) ?? atom(canonical));
  remember(dim, polynomial);
  return polynomial;
}

function constant(value: number): Polynomial {
  return value === 0 ? new Map() : new Map([['', { factors: [], coefficient: value }]]);
}

function atom(text: string): Polynomial {
  return new Map([[text, { factors: [text], coefficient: 1 }]]);
}

function accumulate(into: Map<string, Term>, factors: readonly string[], coefficient: number): void {
  const key = factors.join('*');
  const sum = (into.get(key)?.coefficient ?? 0) + coefficient;
  if (sum === 0) into.delete(key);
  else into.set(key, { factors, coefficient: sum });
}

function combine(a: Polynomial, b: Polynomial, sign: number): Polynomial {
  const out = new Map(a);
  for (const { factors, coefficient } of b.values()) accumulate(out, factors, sign * coefficient);
  return out;
}

function multiply(a: Polynomial, b: Polynomial): Polynomial {
  const out = new Map<string, Term>();
  for (const x of a.values())
    for (const y of b.values())
      accumulate(out, [...x.factors, ...y.factors].sort(compareText), x.coefficient * y.coefficient);
  return out;
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Graded lexicographic order, highest first: the order of printing and of long division. */
function compareTerms(a: Term, b: Term): number {
  if (a.factors.length !== b.factors.length) return b.factors.length - a.factors.length;
  for (let i = 0; i < a.factors.length; i++) {
    const order = compareText(a.factors[i]!, b.factors[i]!);
    if (order !== 0) return order;
  }
  return 0;
}

function dimOf(polynomial: Polynomial): Known {
  if (polynomial.size === 0) return 0;
  const only = polynomial.get('');
  if (polynomial.size === 1 && only !== undefined) return only.coefficient;
  const terms = [...polynomial.values()].sort(
    // A leading minus reads badly, so positive terms of the same degree come first.
    (a, b) =>
      Number(a.factors.length === 0) - Number(b.factors.length === 0) ||
      Number(a.coefficient < 0) - Number(b.coefficient < 0) ||
      compareTerms(a, b),
  );
  let text = '';
  for (const { factors, coefficient } of terms) {
    const size = Math.abs(coefficient);
    const body = [...(size === 1 && factors.length > 0 ? [] : [String(size)]), ...factors].join('*');
    if (text === '') text = coefficient < 0 ? `-${body}` : body;
    else text += coefficient < 0 ? ` - ${body}` : ` + ${body}`;
  }
  if (recall(text) === undefined) remember(text, polynomial);
  return text;
}

function call(name: string, args: readonly Known[]): Known {
  const text = `${name}(${args.join(', ')})`;
  remember(text, atom(text));
  return text;
}

/** Arguments of an atom made by `name`, flattened; the dim itself when it is no such atom. */
function operandsOf(name: string, dim: Known): readonly Known[] {
  if (typeof dim === 'number' || !dim.startsWith(`${name}(`) || !dim.endsWith(')')) return [dim];
  const args: string[] = [];
  let depth = 0;
  let start = name.length + 1;
  for (let i = start; i < dim.length; i++) {
    const c = dim[i];
    if (c === '(') depth++;
    else if ((c === ',' && depth === 0) || (c === ')' && depth === 0)) {
      args.push(dim.slice(start, i).trim());
      start = i + 1;
      if (c === ')' && i !== dim.length - 1) return [dim];
    } else if (c === ')') depth--;
  }
  return args.map((text) => (/^-?\d+$/.test(text) ? Number(text) : text));
}

function constantOf(polynomial: Polynomial): number | undefined {
  const dim = dimOf(polynomial);
  return typeof dim === 'number' ? dim : undefined;
}

/** a / b when b divides a as a polynomial with integer coefficients. */
function divideExactly(a: Polynomial, b: Polynomial): Polynomial | undefined {
  const lead = [...b.values()].sort(compareTerms)[0];
  if (lead === undefined) return undefined;
  const quotient = new Map<string, Term>();
  let rest = a;
  for (let steps = 0; rest.size > 0; steps++) {
    if (steps > 64) return undefined;
    const top = [...rest.values()].sort(compareTerms)[0]!;
    const factors = [...top.factors];
    for (const factor of lead.factors) {
      const at = factors.indexOf(factor);
      if (at < 0) return undefined;
      factors.splice(at, 1);
    }
    const coefficient = top.coefficient / lead.coefficient;
    if (!Number.isInteger(coefficient)) return undefined;
    const term: Polynomial = new Map([[factors.join('*'), { factors, coefficient }]]);
    accumulate(quotient, factors, coefficient);
    rest = combine(rest, multiply(term, b), -1);
  }
  return quotient;
}

function add(a: Known, b: Known): Known {
  if (typeof a === 'number' && typeof b === 'number') return a + b;
  return dimOf(combine(polynomialOf(a), polynomialOf(b), 1));
}

function sub(a: Known, b: Known): Known {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return dimOf(combine(polynomialOf(a), polynomialOf(b), -1));
}

function mul(a: Known, b: Known): Known {
  // Adding 0 turns the −0 that JavaScript makes of 0·(−2) into 0.
  if (typeof a === 'number' && typeof b === 'number') return a * b + 0;
  if (a === 1) return b;
  if (b === 1) return a;
  return dimOf(multiply(polynomialOf(a), polynomialOf(b)));
}

/** Splits a into n·q + r with coefficients of r in [0, n). */
function splitBy(a: Polynomial, n: number): { quotient: Polynomial; rest: Polynomial } {
  const quotient = new Map<string, Term>();
  const rest = new Map<string, Term>();
  for (const { factors, coefficient } of a.values()) {
    const q = Math.floor(coefficient / n);
    if (q !== 0) accumulate(quotient, factors, q);
    if (coefficient - q * n !== 0) accumulate(rest, factors, coefficient - q * n);
  }
  return { quotient, rest };
}

function floordiv(a: Known, b: Known): Known {
  if (b === 0) return call('floordiv', [a, b]);
  if (typeof a === 'number' && typeof b === 'number') return Math.floor(a / b) + 0;
  if (b === 1) return a;
  const dividend = polynomialOf(a);
  const divisor = polynomialOf(b);
  const exact = divideExactly(dividend, divisor);
  if (exact !== undefined) return dimOf(exact);
  if (typeof b === 'number' && b > 0) {
    // floor((n·q + r) / n) = q + floor(r / n) for every integer q.
    const { quotient, rest } = splitBy(dividend, b);
    const value = constantOf(rest);
    if (value !== undefined) return dimOf(quotient);
    const inner = dimOf(rest);
    const [x, n] = operandsOf('floordiv', inner);
    const floor =
      n !== undefined && typeof n === 'number' && n > 0
        ? call('floordiv', [x!, n * b])
        : call('floordiv', [inner, b]);
    return add(dimOf(quotient), floor);
  }
  return call('floordiv', [dimOf(dividend), dimOf(divisor)]);
}

function mod(a: Known, b: Known): Known {
  if (b === 0) return call('Mod', [a, b]);
  if (typeof a === 'number' && typeof b === 'number') return a - b * Math.floor(a / b);
  const dividend = polynomialOf(a);
  const divisor = polynomialOf(b);
  if (divideExactly(dividend, divisor) !== undefined) return 0;
  if (typeof b === 'number' && b > 0) {
    const { rest } = splitBy(dividend, b);
    return constantOf(rest) ?? call('Mod', [dimOf(rest), b]);
  }
  return call('Mod', [dimOf(dividend), dimOf(divisor)]);
}

/** min and max: constants fold, operands a constant apart are decided, nested calls are flattened and sorted. */
function extreme(name: 'Min' | 'Max', a: Known, b: Known): Known {
  const better = name === 'Min' ? Math.min : Math.max;
  const kept: Known[] = [];
  for (const operand of [...operandsOf(name, a), ...operandsOf(name, b)]) {
    const at = kept.findIndex((other) => typeof sub(operand, other) === 'number');
    if (at < 0) kept.push(operand);
    else {
      const distance = sub(operand, kept[at]!) as number;
      if (better(distance, 0) === distance && distance !== 0) kept[at] = operand;
    }
  }
  if (kept.length === 1) return kept[0]!;
  return call(name, sortOperands(kept));
}

function sortOperands(operands: readonly Known[]): Known[] {
  return [...operands].sort(
    (x, y) =>
      Number(typeof y === 'number') - Number(typeof x === 'number') || compareText(String(x), String(y)),
  );
}

function broadcast(a: Known, b: Known): Known {
  if (a === b || b === 1) return a;
  if (a === 1) return b;
  // A number other than 1 is the result whatever the other side is, or the program is ill-formed.
  if (typeof a === 'number') return a;
  if (typeof b === 'number') return b;
  const operands = [...operandsOf('broadcast', a), ...operandsOf('broadcast', b)].map((d) => canonical(d));
  const unique = [...new Set(operands)];
  // Min(c, x) against x: a valid program has Min(c, x) = x or Min(c, x) = 1, and x is the result of both.
  const kept = unique.filter(
    (d) => !operandsOf('Min', d).some((part) => part !== d && unique.includes(part)),
  );
  if (kept.length === 1) return kept[0]!;
  return call('broadcast', sortOperands(kept));
}

function canonical(dim: Known): Known {
  return typeof dim === 'number' ? dim : dimOf(polynomialOf(dim));
}

/** The operations that the expression parser evaluates with. */
const OPERATIONS = {
  add,
  sub,
  mul,
  floordiv,
  mod,
  min: (a: Known, b: Known) => extreme('Min', a, b),
  max: (a: Known, b: Known) => extreme('Max', a, b),
  broadcast,
  call,
  symbol: (name: string): Known => name,
};

export type DimOperations = typeof OPERATIONS;

function lift(operation: (a: Known, b: Known) => Known): (a: Dim, b: Dim) => Dim {
  return (a, b) => (a === null || b === null ? null : operation(a, b));
}

export const addDims = lift(add);
export const subDims = lift(sub);
export const floorDivDims = lift(floordiv);
export const modDims = lift(mod);
export const minDims = lift(OPERATIONS.min);
export const maxDims = lift(OPERATIONS.max);

/** Product; zero times unknown is zero. */
export function mulDims(a: Dim, b: Dim): Dim {
  if (a === 0 || b === 0) return 0;
  return a === null || b === null ? null : mul(a, b);
}

/** ⌈a / b⌉ = −⌊−a / b⌋. */
export function ceilDivDims(a: Dim, b: Dim): Dim {
  return a === null || b === null ? null : sub(0, floordiv(sub(0, a), b));
}

/** Product of dimensions; 1 for none. */
export function productOf(dims: readonly Dim[]): Dim {
  return dims.reduce<Dim>(mulDims, 1);
}

/**
 * The dimension two broadcast operands share: `broadcast(a, b)` for different symbols, of which either may be 1.
 * Unknown against a number other than 1 is that number.
 */
export function broadcastDims(a: Dim, b: Dim): Dim {
  if (a === null) return typeof b === 'number' && b !== 1 ? b : null;
  if (b === null) return typeof a === 'number' && a !== 1 ? a : null;
  return broadcast(a, b);
}

/** Canonical text of a dimension expression; text that is no expression is an atom and stays as it is. */
export function canonicalDim(dim: Dim): Dim {
  return dim === null ? null : canonical(dim);
}

/** Whether two known dimensions are provably equal. */
export function sameDim(a: Dim, b: Dim): boolean {
  if (a === null || b === null) return false;
  return a === b || canonical(a) === canonical(b);
}

/** Least and greatest value of a dimension when every symbol is at least 0. */
export function boundsOf(dim: Known): { readonly min: number; readonly max: number } {
  if (typeof dim === 'number') return { min: dim, max: dim };
  let min = 0;
  let max = 0;
  for (const { factors, coefficient } of polynomialOf(dim).values()) {
    if (factors.length === 0) {
      min += coefficient;
      max += coefficient;
    } else if (coefficient > 0) max = Number.POSITIVE_INFINITY;
    else min = Number.NEGATIVE_INFINITY;
  }
  return { min, max };
}

/** a / b as a whole number when b divides a for every value of the symbols; null otherwise. */
export function divideDims(a: Dim, b: Dim): Dim {
  if (a === null || b === null || b === 0) return null;
  const quotient = divideExactly(polynomialOf(a), polynomialOf(b));
  return quotient === undefined ? null : dimOf(quotient);
}

/** The number a dimension stands for under given sizes of its symbols; undefined when one of them is not given. */
export function evaluateDim(dim: Dim, sizes: ReadonlyMap<string, number>): number | undefined {
  if (dim === null || typeof dim === 'number') return dim ?? undefined;
  const whole = sizes.get(dim);
  if (whole !== undefined) return whole;
  const result = parseExpression(dim, { ...OPERATIONS, symbol: (name) => sizes.get(name) ?? name });
  return typeof result === 'number' ? result : undefined;
}
