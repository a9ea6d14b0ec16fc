/** Types in the ONNX textual syntax. */
import { type Dim, DTYPE_CODES, type DType, type Shape, type ValueType } from '../types.js';
import type { Scanner } from './scanner.js';
import { dtypeWord, TYPE_KEYWORDS } from './spelling.js';

const DTYPES: ReadonlyMap<string, DType> = new Map(
  (Object.keys(DTYPE_CODES) as DType[]).map((dtype) => [dtypeWord(dtype), dtype]),
);

type Keyword = (typeof TYPE_KEYWORDS)[number];

function isKeyword(word: string): word is Keyword {
  return TYPE_KEYWORDS.some((keyword) => keyword === word);
}

function dtype(scanner: Scanner): DType {
  const word = scanner.word('An element type');
  return DTYPES.get(word) ?? scanner.fail(`'${word}' is no element type`);
}

function shape(scanner: Scanner): Shape | null {
  if (!scanner.accept('[')) return [];
  if (scanner.accept(']')) return null;
  const dims: Dim[] = [];
  do {
    if (scanner.accept('?')) dims.push(null);
    else dims.push(scanner.optionalName() ?? Number(scanner.integer('A dimension')));
  } while (scanner.accept(','));
  scanner.expect(']');
  return dims;
}

function dotted(scanner: Scanner): string {
  let name = scanner.name('A name');
  while (scanner.accept('.')) name += `.${scanner.name('A name')}`;
  return name;
}

const COMPOUND: Readonly<Record<Keyword, (scanner: Scanner) => ValueType>> = {
  seq: (s) => ({ kind: 'sequence', element: parseType(s) }),
  optional: (s) => ({ kind: 'optional', element: parseType(s) }),
  sparse_tensor: (s) => ({ kind: 'sparse', dtype: dtype(s), shape: shape(s) }),
  map(s) {
    const key = dtype(s);
    s.expect(',');
    return { kind: 'map', key, value: parseType(s) };
  },
  opaque(s) {
    if (s.peek() === ')') return { kind: 'opaque', domain: '', name: '' };
    const first = dotted(s);
    return s.accept(',')
      ? { kind: 'opaque', domain: first, name: s.peek() === ')' ? '' : dotted(s) }
      : { kind: 'opaque', domain: '', name: first };
  },
};

/** A type; the scanner must be at one. */
export function parseType(scanner: Scanner): ValueType {
  const word = scanner.peekWord();
  if (isKeyword(word)) {
    scanner.word('A type');
    scanner.expect('(');
    const type = COMPOUND[word](scanner);
    scanner.expect(')');
    return type;
  }
  return { kind: 'tensor', dtype: dtype(scanner), shape: shape(scanner) };
}
