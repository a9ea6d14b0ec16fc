/** Characters to tokens of the ONNX textual syntax. Comments are skipped, `#@ {json}` comments are kept for the parser. */
import { fail } from '../errors.js';
import { isTypeWord } from './spelling.js';

export type Literal =
  | { readonly kind: 'int' | 'float'; readonly text: string }
  | { readonly kind: 'string'; readonly text: string }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array };

const SPACE = /[ \t\n\v\f\r]/;
const NUMBER = /-?\d+(\.\d*)?([eE][+-]?\d*)?/y;
const SPECIAL = /-?(infinity|inf|nan)(?![A-Za-z0-9_])/iy;
const WORD = /[A-Za-z_][A-Za-z0-9_]*/y;
const HEX = /x"((?:[0-9a-f]{2})*)"/y;

export class Scanner {
  #at = 0;
  #pragma: string | undefined;

  constructor(
    readonly text: string,
    readonly file: string | undefined,
  ) {}

  /** Stops with `E_PARSE` at the present place. */
  fail(message: string, remedy?: string): never {
    const before = this.text.slice(0, this.#at);
    const line = before.split('\n').length;
    const column = this.#at - before.lastIndexOf('\n');
    const context = this.text.split('\n')[line - 1]?.trim().slice(0, 120) ?? '';
    return fail('E_PARSE', {
      message: `${message}${context === '' ? '' : `, in: ${context}`}`,
      where: `${this.file ?? 'text'}:${line}:${column}`,
      ...(remedy === undefined ? {} : { remedy }),
    });
  }

  skip(): void {
    const { text } = this;
    for (;;) {
      while (this.#at < text.length && SPACE.test(text[this.#at]!)) this.#at++;
      if (text[this.#at] !== '#') return;
      const found = text.indexOf('\n', this.#at);
      const end = found === -1 ? text.length : found;
      if (text.startsWith('#@', this.#at)) this.#pragma = text.slice(this.#at + 2, end);
      this.#at = end;
    }
  }

  /** The last `#@` line that was skipped and not yet taken, as JSON. */
  takePragma(): Record<string, unknown> {
    this.skip();
    const text = this.#pragma;
    this.#pragma = undefined;
    if (text === undefined) return {};
    try {
      const value: unknown = JSON.parse(text);
      if (typeof value === 'object' && value !== null && !Array.isArray(value))
        return Object.fromEntries(Object.entries(value));
    } catch {
      // Falls through to the error below, which has the place.
    }
    return this.fail('A line that starts with #@ must hold a JSON object');
  }

  /** The next character that is not blank, or '' at the end. */
  peek(): string {
    this.skip();
    return this.text[this.#at] ?? '';
  }

  get done(): boolean {
    return this.peek() === '';
  }

  accept(token: string): boolean {
    this.skip();
    if (!this.text.startsWith(token, this.#at)) return false;
    this.#at += token.length;
    return true;
  }

  expect(token: string): void {
    if (!this.accept(token)) this.fail(`'${token}' expected`);
  }

  /** The next identifier without taking it, or ''. */
  peekWord(): string {
    this.skip();
    return this.#match(WORD)?.[0] ?? '';
  }

  word(what: string): string {
    const word = this.peekWord();
    if (word === '') this.fail(`${what} expected`);
    this.#at += word.length;
    return word;
  }

  /** An identifier or a quoted string; undefined when there is neither. */
  optionalName(): string | undefined {
    if (this.peek() === '"') return this.#quoted();
    const word = this.peekWord();
    this.#at += word.length;
    return word === '' ? undefined : word;
  }

  name(what: string): string {
    return this.optionalName() ?? this.fail(`${what} expected`);
  }

  string(what: string): string {
    if (this.peek() !== '"') this.fail(`${what} in double quotes expected`);
    return this.#quoted();
  }

  /** An integer, `12` or `-3`. */
  integer(what: string): bigint {
    const literal = this.literal();
    if (literal?.kind !== 'int') this.fail(`${what} expected`);
    return BigInt(literal.text);
  }

  atType(): boolean {
    return isTypeWord(this.peekWord());
  }

  /** A number, string or hex literal; undefined when none starts here. */
  literal(): Literal | undefined {
    if (this.peek() === '"') return { kind: 'string', text: this.#quoted() };
    const hex = this.#take(HEX);
    if (hex !== undefined) return { kind: 'bytes', bytes: Buffer.from(hex[1] ?? '', 'hex') };
    const special = this.#take(SPECIAL);
    if (special !== undefined) return { kind: 'float', text: special[0] };
    const number = this.#take(NUMBER);
    if (number === undefined) return undefined;
    return { kind: number[1] === undefined && number[2] === undefined ? 'int' : 'float', text: number[0] };
  }

  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    return pattern.exec(this.text) ?? undefined;
  }

  #take(pattern: RegExp): RegExpExecArray | undefined {
    const match = this.#match(pattern);
    if (match !== undefined) this.#at += match[0].length;
    return match;
  }

  #quoted(): string {
    const { text } = this;
    let out = '';
    for (let i = this.#at + 1; i < text.length; i++) {
      const char = text[i]!;
      if (char === '"') {
        this.#at = i + 1;
        return out;
      }
      if (char === '\\') i++;
      out += text[i] ?? '';
    }
    return this.fail('A string is not closed');
  }
}
