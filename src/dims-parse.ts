/**
 * Reads the dimension expressions of exporters: `batch*seq`, `past + seq`, `s0 // 2`, `2*s0`, `Max(1, s0)`,
 * `floor(s0/2)`, `s0**2`, `Mod(s0, 8)`.
 */
import type { DimOperations } from './dims.js';

type Known = number | string;

const TOKEN = /\s*(?:(\d+)|([A-Za-z_$?][\w$.:?]*)|(\*\*|\/\/|[-+*/%(),]))/y;

/** Operators by precedence, loosest first. */
const LEVELS: readonly Readonly<Record<string, 'add' | 'sub' | 'mul' | 'floordiv' | 'mod'>>[] = [
  { '+': 'add', '-': 'sub' },
  { '*': 'mul', '//': 'floordiv', '/': 'floordiv', '%': 'mod' },
];

const FUNCTIONS: Readonly<Record<string, 'floordiv' | 'mod' | 'min' | 'max' | 'broadcast'>> = {
  floordiv: 'floordiv',
  FloorDiv: 'floordiv',
  CleanDiv: 'floordiv',
  mod: 'mod',
  Mod: 'mod',
  PythonMod: 'mod',
  min: 'min',
  Min: 'min',
  max: 'max',
  Max: 'max',
  broadcast: 'broadcast',
};

/** Functions that are the identity on integers. */
const ROUNDINGS = new Set(['floor', 'FloorToInt', 'ToInt', 'TruncToInt', 'Identity']);

function tokenize(text: string): string[] | undefined {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const match = TOKEN.exec(text);
    if (match === null) return undefined;
    tokens.push(match[1] ?? match[2] ?? match[3]!);
  }
  return tokens;
}

class Unreadable extends Error {}

class Parser {
  #at = 0;
  constructor(
    readonly tokens: readonly string[],
    readonly operations: DimOperations,
  ) {}

  whole(): Known {
    const value = this.binary(0);
    if (this.#at !== this.tokens.length) throw new Unreadable();
    return value;
  }

  binary(level: number): Known {
    const operators = LEVELS[level];
    if (operators === undefined) return this.unary();
    let left = this.binary(level + 1);
    for (;;) {
      const token = this.tokens[this.#at] ?? '';
      const operation = Object.hasOwn(operators, token) ? operators[token] : undefined;
      if (operation === undefined) return left;
      this.#at++;
      left = this.operations[operation](left, this.binary(level + 1));
    }
  }

  unary(): Known {
    if (this.tokens[this.#at] === '-') {
      this.#at++;
      return this.operations.sub(0, this.unary());
    }
    return this.power();
  }

  power(): Known {
    const base = this.primary();
    if (this.tokens[this.#at] !== '**') return base;
    this.#at++;
    const exponent = this.unary();
    if (typeof exponent !== 'number' || exponent < 0 || exponent > 16)
      return this.operations.call('pow', [base, exponent]);
    let result: Known = 1;
    for (let i = 0; i < exponent; i++) result = this.operations.mul(result, base);
    return result;
  }

  primary(): Known {
    const token = this.tokens[this.#at++];
    if (token === undefined) throw new Unreadable();
    if (/^\d/.test(token)) return Number(token);
    if (token === '(') {
      const value = this.binary(0);
      this.expect(')');
      return value;
    }
    if (!/^[A-Za-z_$?]/.test(token)) throw new Unreadable();
    if (this.tokens[this.#at] !== '(') return this.operations.symbol(token);
    this.#at++;
    const args = [this.binary(0)];
    while (this.tokens[this.#at] === ',') {
      this.#at++;
      args.push(this.binary(0));
    }
    this.expect(')');
    return this.apply(token, args);
  }

  apply(name: string, args: readonly Known[]): Known {
    const [first, ...rest] = args as [Known, ...Known[]];
    if (ROUNDINGS.has(name) && rest.length === 0) return first;
    const operation = Object.hasOwn(FUNCTIONS, name) ? FUNCTIONS[name] : undefined;
    if (operation === undefined || rest.length === 0) return this.operations.call(name, args);
    return rest.reduce<Known>((a, b) => this.operations[operation](a, b), first);
  }

  expect(token: string): void {
    if (this.tokens[this.#at++] !== token) throw new Unreadable();
  }
}

/** Value of the expression in canonical form, or undefined when the text is not an expression. */
export function parseExpression(text: string, operations: DimOperations): Known | undefined {
  const tokens = tokenize(text);
  if (tokens === undefined || tokens.length === 0) return undefined;
  // A lone symbol needs no evaluation, and evaluating it would recur.
  if (tokens.length === 1) return /^\d+$/.test(text) ? Number(text) : operations.symbol(text);
  try {
    return new Parser(tokens, operations).whole();
  } catch (error) {
    if (error instanceof Unreadable) return undefined;
    throw error;
  }
}
