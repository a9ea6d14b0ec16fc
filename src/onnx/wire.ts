/**
 * The protobuf wire format, read without building protobuf objects. A message is a list of spans of a source (several
 * when a singular field occurs more than once, which protobuf defines as concatenation), so that any part of a file
 * can later be written back byte for byte.
 */
import { fail } from '../errors.js';
import type { Source } from './source.js';

/** Bytes [start, end) of a source. */
export interface Span {
  readonly source: Source;
  readonly start: number;
  readonly end: number;
}

export const VARINT = 0;
export const FIXED64 = 1;
export const BYTES = 2;
const GROUP = 3;
const GROUP_END = 4;
export const FIXED32 = 5;

/** One occurrence of a field: [start, end) with its tag, [body, end) without tag and length. */
export interface Field extends Span {
  readonly number: number;
  readonly wire: number;
  readonly body: number;
}

/** Nesting that protobuf implementations accept by default. */
const MAX_DEPTH = 100;
const TWO_32 = 2 ** 32;
const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

export function corrupt(at: { source: Source; start: number }, message: string): never {
  fail('E_CORRUPT_MODEL', {
    message,
    where: `${at.source.label}, byte ${at.start}`,
    remedy: 'The file is damaged or not an ONNX model; export or download it again.',
  });
}

/** An encoded message and the field occurrences it came from (none for the top level). */
export class Message {
  constructor(
    readonly spans: readonly Span[],
    readonly from: readonly Field[] = [],
    readonly depth = 0,
  ) {}

  parse(): Parsed {
    return new Parsed(this);
  }

  /** Position for messages about this message. */
  get place(): { source: Source; start: number } {
    return (this.from[0] ?? this.spans[0]) as Span;
  }
}

/** The fields of one message in file order, and typed access to them by number. */
export class Parsed {
  readonly fields: Field[] = [];
  readonly #byNumber = new Map<number, Field[]>();

  constructor(readonly message: Message) {
    if (message.depth > MAX_DEPTH)
      corrupt(message.place, `Messages are nested deeper than ${MAX_DEPTH} levels`);
    for (const span of message.spans) scan(span, this.fields);
    for (const field of this.fields) {
      const list = this.#byNumber.get(field.number);
      if (list === undefined) this.#byNumber.set(field.number, [field]);
      else list.push(field);
    }
  }

  all(number: number): readonly Field[] {
    return this.#byNumber.get(number) ?? [];
  }

  #last(number: number, wire: number): Field | undefined {
    const field = this.all(number).at(-1);
    if (field !== undefined) expectWire(field, wire);
    return field;
  }

  string(number: number): string | undefined {
    const field = this.#last(number, BYTES);
    return field && text(field);
  }

  strings(number: number): string[] {
    return this.all(number).map((field) => text(expectWire(field, BYTES)));
  }

  bytes(number: number): Uint8Array | undefined {
    const field = this.#last(number, BYTES);
    return field && contents(field);
  }

  byteStrings(number: number): Uint8Array[] {
    return this.all(number).map((field) => contents(expectWire(field, BYTES)));
  }

  /** A signed 64-bit field. */
  int(number: number): bigint | undefined {
    const field = this.#last(number, VARINT);
    return field && BigInt.asIntN(64, varintAt(field.source, field.body, field.end).value);
  }

  /** An integer field that must fit a double exactly. */
  safeInt(number: number): number | undefined {
    const value = this.int(number);
    if (value === undefined) return undefined;
    const result = Number(value);
    const field = this.all(number).at(-1) as Field;
    if (!Number.isSafeInteger(result)) corrupt(field, `The number ${value} is out of range`);
    return result;
  }

  /** Repeated 64-bit integers, packed or not. */
  ints(number: number): bigint[] {
    const result: bigint[] = [];
    for (const field of this.all(number)) {
      if (field.wire !== VARINT) expectWire(field, BYTES);
      for (let at = field.body; at < field.end; ) {
        const { value, next } = varintAt(field.source, at, field.end);
        result.push(BigInt.asIntN(64, value));
        at = next;
      }
    }
    return result;
  }

  float(number: number): number | undefined {
    const field = this.#last(number, FIXED32);
    return field && dataView(contents(field)).getFloat32(0, true);
  }

  /** Repeated 32-bit floats, packed or not. */
  floats(number: number): number[] {
    const result: number[] = [];
    for (const field of this.all(number)) {
      if (field.wire !== FIXED32) expectWire(field, BYTES);
      if ((field.end - field.body) % 4 !== 0) corrupt(field, 'A list of floats has a broken length');
      const view = dataView(contents(field));
      for (let at = 0; at < view.byteLength; at += 4) result.push(view.getFloat32(at, true));
    }
    return result;
  }

  /** A singular submessage: all occurrences together. */
  sub(number: number): Message | undefined {
    const fields = this.all(number);
    return fields.length === 0 ? undefined : this.#message(fields);
  }

  subs(number: number): Message[] {
    return this.all(number).map((field) => this.#message([field]));
  }

  #message(fields: readonly Field[]): Message {
    const spans = fields.map((field) => {
      expectWire(field, BYTES);
      return { source: field.source, start: field.body, end: field.end };
    });
    return new Message(spans, fields, this.message.depth + 1);
  }
}

export function expectWire(field: Field, wire: number): Field {
  if (field.wire !== wire)
    corrupt(field, `Field ${field.number} has wire type ${field.wire} where ${wire} belongs`);
  return field;
}

/** The body of a length-delimited or fixed field. */
export function contents(field: Field): Uint8Array {
  return field.source.view(field.body, field.end);
}

function text(field: Field): string {
  return utf8.decode(contents(field));
}

export function dataView(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Splits [start, end) into fields. Bodies are skipped, not read. */
function scan(span: Span, into: Field[]): void {
  const { source, end } = span;
  let at = span.start;
  while (at < end) {
    const field = fieldAt(source, at, end, 0);
    into.push(field);
    at = field.end;
  }
}

function fieldAt(source: Source, start: number, end: number, depth: number): Field {
  const tag = lengthAt(source, start, end);
  const number = Math.floor(tag.value / 8);
  const wire = tag.value % 8;
  const place = { source, start };
  if (number === 0 || tag.value >= TWO_32) corrupt(place, 'Not a protobuf field');
  let body = tag.next;
  let stop: number;
  switch (wire) {
    case VARINT:
      stop = varintEnd(source, body, end);
      break;
    case FIXED64:
      stop = body + 8;
      break;
    case FIXED32:
      stop = body + 4;
      break;
    case BYTES: {
      const length = lengthAt(source, body, end);
      body = length.next;
      stop = body + length.value;
      break;
    }
    case GROUP:
      stop = groupEnd(source, number, body, end, depth);
      break;
    default:
      corrupt(place, `Not a protobuf field (wire type ${wire})`);
  }
  if (stop > end)
    corrupt(place, `Field ${number} claims ${stop - body} bytes where ${Math.max(0, end - body)} are left`);
  return { source, number, wire, start, body, end: stop };
}

function groupEnd(source: Source, number: number, start: number, end: number, depth: number): number {
  if (depth > MAX_DEPTH) corrupt({ source, start }, `Groups are nested deeper than ${MAX_DEPTH} levels`);
  let at = start;
  while (at < end) {
    const tag = lengthAt(source, at, end);
    if (tag.value % 8 === GROUP_END) {
      if (Math.floor(tag.value / 8) !== number)
        corrupt({ source, start: at }, 'A group ends that did not begin');
      return tag.next;
    }
    at = fieldAt(source, at, end, depth + 1).end;
  }
  return corrupt({ source, start }, 'A group does not end');
}

function varintEnd(source: Source, start: number, end: number): number {
  for (let at = start; at < end && at < start + 10; at++) if (source.byteAt(at) < 0x80) return at + 1;
  return corrupt(
    { source, start },
    start + 10 <= end ? 'A number is longer than 10 bytes' : 'The file ends inside a number',
  );
}

/** A tag or length: a varint below 2^53. */
function lengthAt(source: Source, start: number, end: number): { value: number; next: number } {
  const first = start < end ? source.byteAt(start) : 0x80;
  if (first < 0x80) return { value: first, next: start + 1 };
  const next = varintEnd(source, start, end);
  let value = 0;
  for (let at = next - 1; at >= start; at--) value = value * 128 + (source.byteAt(at) & 0x7f);
  if (!Number.isSafeInteger(value)) corrupt({ source, start }, 'A length is out of range');
  return { value, next };
}

/** An unsigned varint of up to 64 bits. */
export function varintAt(source: Source, start: number, end: number): { value: bigint; next: number } {
  const next = varintEnd(source, start, end);
  if (next - start <= 4) {
    let value = 0;
    for (let at = next - 1; at >= start; at--) value = value * 128 + (source.byteAt(at) & 0x7f);
    return { value: BigInt(value), next };
  }
  let value = 0n;
  for (let at = next - 1; at >= start; at--) value = (value << 7n) | BigInt(source.byteAt(at) & 0x7f);
  return { value: BigInt.asUintN(64, value), next };
}
