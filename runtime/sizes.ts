/** Concrete sizes for the symbolic dimensions of a model's inputs. */
import type { Sizes } from './random-inputs.js';

export interface ShapeCase {
  readonly label: string;
  readonly sizes: Sizes;
  readonly padded: boolean;
}

/** Size of a batch-like axis and of every other symbol, and whether masks are padded, per default case. */
const DEFAULT_CASES = [
  { batch: 2, other: 8, padded: false },
  { batch: 1, other: 5, padded: false },
  { batch: 3, other: 13, padded: true },
] as const;

/** Cases for the symbols of a model: several sizes when it has symbols, masks with and without padding. */
export function defaultCases(symbols: readonly string[]): ShapeCase[] {
  const free = symbols.filter((symbol) => isIdentifier(symbol));
  if (free.length === 0)
    return [
      { label: 'fixed shape', sizes: {}, padded: false },
      { label: 'fixed shape, padded', sizes: {}, padded: true },
    ];
  return DEFAULT_CASES.map(({ batch, other, padded }) =>
    shapeCase(
      symbols,
      Object.fromEntries(free.map((symbol) => [symbol, /batch|^b$|^n$/i.test(symbol) ? batch : other])),
      padded,
    ),
  );
}

/** One case; symbols that are expressions over others (`past + seq`) are computed from them. */
export function shapeCase(symbols: readonly string[], given: Sizes, padded: boolean): ShapeCase {
  const sizes: Record<string, number> = { ...given };
  for (const symbol of symbols)
    if (!(symbol in sizes)) {
      const size = evaluate(symbol, sizes);
      if (size !== undefined) sizes[symbol] = size;
    }
  const text = Object.entries(given)
    .map(([symbol, size]) => `${symbol}=${size}`)
    .join(' ');
  return { label: padded ? `${text} padded` : text, sizes, padded };
}

function isIdentifier(symbol: string): boolean {
  return /^[A-Za-z_][\w.]*$/.test(symbol);
}

/** Value of `a + 2*b − 1`-like text; undefined when it holds anything else. */
function evaluate(text: string, sizes: Sizes): number | undefined {
  let total = 0;
  for (const term of text.replace(/\s|[()]/g, '').matchAll(/([+-]?)([^+-]+)/g)) {
    let product = term[1] === '-' ? -1 : 1;
    for (const factor of (term[2] ?? '').split('*')) {
      const value = /^\d+$/.test(factor) ? Number(factor) : sizes[factor];
      if (value === undefined) return undefined;
      product *= value;
    }
    total += product;
  }
  return total > 0 ? total : undefined;
}
