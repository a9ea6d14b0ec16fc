/** Values of attributes and payloads of tensors in the ONNX textual syntax. */
import type { Attribute, SparseTensor } from '../attribute.js';
import type { Graph } from '../graph.js';
import { BytesData, type Tensor } from '../tensor.js';
import type { ValueType } from '../types.js';
import { parseType } from './parse-types.js';
import { AbsentData, numberOf, tensorOfLiterals } from './payload.js';
import type { Literal, Scanner } from './scanner.js';
import { ATTRIBUTE_TYPE_CODES, ATTRIBUTE_WORDS } from './spelling.js';

/**
 * What stands behind `=`. `annotation` is the written attribute type, if any; `body` reads a graph from its name on.
 */
export function parseAttributeValue(
  scanner: Scanner,
  annotation: string | undefined,
  body: () => Graph,
): Attribute {
  if (annotation !== undefined && !Object.hasOwn(ATTRIBUTE_TYPE_CODES, annotation))
    scanner.fail(`'${annotation}' is no attribute type`);
  if (scanner.accept('@')) {
    const attrType = annotation === undefined ? undefined : ATTRIBUTE_TYPE_CODES[annotation];
    return { type: 'ref', value: scanner.name('An attribute'), attrType: attrType ?? 0 };
  }
  if (!scanner.accept('[')) {
    const single = parseSingle(scanner, annotation, body);
    if (annotation === undefined || ATTRIBUTE_WORDS[single.type] === annotation) return single;
    return scanner.fail(`The value is of type ${ATTRIBUTE_WORDS[single.type]}, not ${annotation}`);
  }
  const element = annotation?.replace(/s$/, '');
  const items: Attribute[] = [];
  if (!scanner.accept(']')) {
    do items.push(parseSingle(scanner, element, body));
    while (scanner.accept(','));
    scanner.expect(']');
  }
  return listOf(scanner, annotation, items);
}

function parseSingle(scanner: Scanner, expected: string | undefined, body: () => Graph): Attribute {
  if (expected === 'sparse_tensor') return { type: 'sparse', value: readSparse(scanner) };
  if (scanner.atType()) {
    const type = parseType(scanner);
    const next = scanner.peek();
    if (expected === 'type_proto' || (next !== '{' && next !== '=' && scanner.peekWord() === ''))
      return { type: 'typeProto', value: type };
    const name = scanner.optionalName();
    scanner.accept('=');
    const value = readTensor(scanner, type);
    return { type: 'tensor', value, ...(name === undefined ? {} : { name }) };
  }
  const literal = scanner.literal();
  if (literal === undefined) {
    if (scanner.peekWord() === '') scanner.fail('The value of an attribute expected');
    return { type: 'graph', value: body() };
  }
  return fromLiteral(literal, expected);
}

function fromLiteral(literal: Literal, expected: string | undefined): Attribute {
  switch (literal.kind) {
    case 'string':
      return { type: 'string', value: literal.text };
    case 'bytes':
      return { type: 'bytes', value: literal.bytes };
    case 'float':
      return { type: 'float', value: Math.fround(numberOf(literal.text)) };
    case 'int':
      return expected === 'float'
        ? { type: 'float', value: Math.fround(Number(literal.text)) }
        : { type: 'int', value: BigInt(literal.text) };
  }
}

/** The picked parts of all items, or undefined when one is of another type. */
function pick<T>(items: readonly Attribute[], part: (item: Attribute) => T | undefined): T[] | undefined {
  const parts: T[] = [];
  for (const item of items) {
    const value = part(item);
    if (value === undefined) return undefined;
    parts.push(value);
  }
  return parts;
}

function strings(items: readonly Attribute[]): Attribute | undefined {
  const texts = pick(items, (a) => (a.type === 'string' ? a.value : undefined));
  if (texts !== undefined) return { type: 'strings', value: texts };
  const value = pick(items, (a) =>
    a.type === 'bytes' ? a.value : a.type === 'string' ? new TextEncoder().encode(a.value) : undefined,
  );
  return value && { type: 'byteStrings', value };
}

/** By the spelling of a list type: its attribute of the items, undefined when an item does not belong in it. */
const LISTS: Readonly<Record<string, (items: readonly Attribute[]) => Attribute | undefined>> = {
  // `[1, 2.5]` is a list of floats when it says so.
  floats(items) {
    const value = pick(items, (a) =>
      a.type === 'float' ? a.value : a.type === 'int' ? Math.fround(Number(a.value)) : undefined,
    );
    return value && { type: 'floats', value };
  },
  ints(items) {
    const value = pick(items, (a) => (a.type === 'int' ? a.value : undefined));
    return value && { type: 'ints', value };
  },
  strings,
  tensors(items) {
    const value = pick(items, (a) => (a.type === 'tensor' ? a.value : undefined));
    return value && { type: 'tensors', value };
  },
  graphs(items) {
    const value = pick(items, (a) => (a.type === 'graph' ? a.value : undefined));
    return value && { type: 'graphs', value };
  },
  sparse_tensors(items) {
    const value = pick(items, (a) => (a.type === 'sparse' ? a.value : undefined));
    return value && { type: 'sparses', value };
  },
  type_protos(items) {
    const value = pick(items, (a) => (a.type === 'typeProto' ? a.value : undefined));
    return value && { type: 'typeProtos', value };
  },
};

function listOf(scanner: Scanner, annotation: string | undefined, items: readonly Attribute[]): Attribute {
  const first = items[0];
  if (annotation === undefined && first === undefined)
    scanner.fail('An empty list needs the type of the attribute', "Write 'name: ints = []'");
  const word = annotation ?? (first === undefined ? '' : `${ATTRIBUTE_WORDS[first.type]}s`);
  const list = LISTS[word]?.(items) ?? (annotation === undefined ? LISTS.floats?.(items) : undefined);
  return list ?? scanner.fail(`The items of the list are not all of one type that fits ${word}`);
}

/** `sparse_tensor[3,4] (values, indices)` */
function readSparse(scanner: Scanner): SparseTensor {
  scanner.word('sparse_tensor');
  const dims: number[] = [];
  scanner.expect('[');
  if (!scanner.accept(']')) {
    do dims.push(Number(scanner.integer('A dimension')));
    while (scanner.accept(','));
    scanner.expect(']');
  }
  scanner.expect('(');
  const part = (): Tensor => {
    const type = parseType(scanner);
    scanner.accept('=');
    return readTensor(scanner, type);
  };
  const values = part();
  scanner.expect(',');
  const indices = part();
  scanner.expect(')');
  return { dims, values, indices };
}

/** The payload of a tensor of the given type: `{…}`, an external-data list, or nothing (no data). */
export function readTensor(scanner: Scanner, type: ValueType): Tensor {
  if (type.kind !== 'tensor') scanner.fail('A tensor type expected');
  const dims = (type.shape ?? scanner.fail('A tensor needs a shape')).map((dim) =>
    typeof dim === 'number' ? dim : scanner.fail('The dimensions of a tensor must be numbers'),
  );
  const { dtype } = type;
  if (scanner.accept('[')) {
    const entries = new Map<string, string>();
    do {
      const key = scanner.string('A key');
      scanner.expect(':');
      entries.set(key, scanner.string('A value'));
    } while (scanner.accept(','));
    scanner.expect(']');
    return { dtype, dims, data: new AbsentData(entries) };
  }
  const literals: Literal[] = [];
  if (scanner.accept('{') && !scanner.accept('}')) {
    do literals.push(scanner.literal() ?? scanner.fail('A value expected'));
    while (scanner.accept(','));
    scanner.expect('}');
  }
  if (dtype === 'string') {
    const strings = literals.map((literal) =>
      literal.kind === 'bytes' ? literal.bytes : new TextEncoder().encode(literal.text),
    );
    return { dtype, dims, data: new BytesData(new Uint8Array(0)), strings };
  }
  const texts = literals.map((literal) =>
    literal.kind === 'bytes' ? scanner.fail('A number expected') : literal.text,
  );
  const tensor = tensorOfLiterals(dtype, dims, texts);
  return typeof tensor === 'string' ? scanner.fail(`The payload does not fit: ${tensor}`) : tensor;
}
