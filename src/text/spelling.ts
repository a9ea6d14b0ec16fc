/**
 * Spelling of names, strings, numbers and types in the ONNX textual syntax (onnx `docs/Syntax.md`), shared by printer
 * and parser.
 */
import { ATTRIBUTE_CODES, type Attribute } from '../attribute.js';
import type { DType, Shape, ValueType } from '../types.js';

/** Element types by their spelling in the syntax, which is that of C++ for two of them. */
const SPECIAL_DTYPES: ReadonlyMap<DType, string> = new Map([
  ['float32', 'float'],
  ['float64', 'double'],
]);

/** `float` for float32, `double` for float64, our own name otherwise. */
export function dtypeWord(dtype: DType): string {
  return SPECIAL_DTYPES.get(dtype) ?? dtype;
}

/** Words that start a type other than a plain tensor. */
export const TYPE_KEYWORDS = ['seq', 'map', 'optional', 'sparse_tensor', 'opaque'] as const;

/** Spelling of the type of each of our attributes. */
export const ATTRIBUTE_WORDS: Readonly<Record<Attribute['type'], string>> = {
  float: 'float',
  int: 'int',
  string: 'string',
  bytes: 'string',
  tensor: 'tensor',
  graph: 'graph',
  sparse: 'sparse_tensor',
  typeProto: 'type_proto',
  floats: 'floats',
  ints: 'ints',
  strings: 'strings',
  byteStrings: 'strings',
  tensors: 'tensors',
  graphs: 'graphs',
  sparses: 'sparse_tensors',
  typeProtos: 'type_protos',
  ref: 'ref',
};

/** Attribute types of `AttributeProto` by their spelling, with their number. */
export const ATTRIBUTE_TYPE_CODES: Readonly<Record<string, number>> = Object.fromEntries(
  Object.entries(ATTRIBUTE_CODES).map(([type, code]) => [ATTRIBUTE_WORDS[type as Attribute['type']], code]),
);

/** Spelling of a type by its number. */
export function attributeTypeWord(code: number): string | undefined {
  return Object.keys(ATTRIBUTE_TYPE_CODES).find((word) => ATTRIBUTE_TYPE_CODES[word] === code);
}

const IDENTIFIER = /^[A-Za-z_][A-Za-z0-9_]*$/;

export function isIdentifier(text: string): boolean {
  return IDENTIFIER.test(text);
}

/** `"` and `\` are escaped by a backslash; every other character, line ends included, stands for itself. */
export function quote(text: string): string {
  return `"${text.replace(/["\\]/g, '\\$&')}"`;
}

/** Bytes that are no UTF-8 text, `x"00ff"`. Our extension: the official syntax has no escape for them. */
export function hexLiteral(bytes: Uint8Array): string {
  return `x"${Buffer.from(bytes).toString('hex')}"`;
}

/** Words that would be read as the start of a type where a name may stand. */
const RESERVED = new Set<string>([...TYPE_KEYWORDS, 'float', 'double', 'string', 'bool', 'undefined']);
const RESERVED_DTYPE = /^(u?int\d+|b?float\d.*|complex\d+)$/;

export function isTypeWord(word: string): boolean {
  return RESERVED.has(word) || RESERVED_DTYPE.test(word);
}

/** A name where the syntax allows quotes: bare when it is an identifier and cannot be taken for a type. */
export function quotable(name: string): string {
  return isIdentifier(name) && !isTypeWord(name) ? name : quote(name);
}

/** Parts of a dotted domain and operator; parts that are no identifiers are quoted, which is our extension. */
export function qualified(domain: string, op: string): string {
  const parts = domain === '' ? [op] : [...domain.split('.'), op];
  return parts.map((part) => (isIdentifier(part) ? part : quote(part))).join('.');
}

function special(value: number): string | undefined {
  if (Number.isNaN(value)) return 'nan';
  if (value === Number.POSITIVE_INFINITY) return 'inf';
  if (value === Number.NEGATIVE_INFINITY) return '-inf';
  return Object.is(value, -0) ? '-0' : undefined;
}

/** The shortest decimal that reads back as this double. */
export function float64Text(value: number): string {
  return special(value) ?? String(value);
}

/** The shortest decimal that reads back as this float32. */
export function float32Text(value: number): string {
  const word = special(value);
  if (word !== undefined) return word;
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return String(short);
  }
  return String(Number(value.toPrecision(9)));
}

/** A float attribute: never without point or exponent, which would make it an int. */
export function floatAttributeText(value: number): string {
  const text = float32Text(value);
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}

function shapeText(shape: Shape | null): string {
  if (shape === null) return '[]';
  if (shape.length === 0) return '';
  const dims = shape.map((dim) => (dim === null ? '?' : typeof dim === 'number' ? `${dim}` : dimSymbol(dim)));
  return `[${dims.join(',')}]`;
}

function dimSymbol(symbol: string): string {
  return isIdentifier(symbol) ? symbol : quote(symbol);
}

/** `float[batch,128]`, `float` for a scalar, `float[]` for unknown rank, `seq(int64[?])`, … */
export function typeText(type: ValueType): string {
  switch (type.kind) {
    case 'tensor':
      return `${dtypeWord(type.dtype)}${shapeText(type.shape)}`;
    case 'sparse':
      return `sparse_tensor(${dtypeWord(type.dtype)}${shapeText(type.shape)})`;
    case 'sequence':
      return `seq(${typeText(type.element)})`;
    case 'optional':
      return `optional(${typeText(type.element)})`;
    case 'map':
      return `map(${dtypeWord(type.key)}, ${typeText(type.value)})`;
    case 'opaque': {
      const name = type.name.split('.').map(dimSymbol).join('.');
      if (type.domain === '') return type.name === '' ? 'opaque()' : `opaque(${name})`;
      return `opaque(${type.domain.split('.').map(dimSymbol).join('.')},${name})`;
    }
  }
}
