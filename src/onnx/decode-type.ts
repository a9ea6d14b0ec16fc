/** `TypeProto` and `ValueInfoProto` to types. What the IR does not model (denotations) stays with the origin. */
import { type Dim, type DType, dtypeOfCode, type Shape, type ValueType } from '../types.js';
import { decodeEntries } from './decode-tensor.js';
import { DIM, SHAPE, TYPE, TYPE_PART, VALUE_INFO } from './fields.js';
import type { Message, Parsed } from './wire.js';

export interface ValueInfo {
  readonly name: string;
  readonly type: ValueType | undefined;
  readonly doc: string | undefined;
  readonly metadata: ReadonlyMap<string, string>;
}

export function decodeValueInfo(message: Message): ValueInfo {
  const parsed = message.parse();
  const type = parsed.sub(VALUE_INFO.type);
  return {
    name: parsed.string(VALUE_INFO.name) ?? '',
    type: type && decodeType(type),
    doc: parsed.string(VALUE_INFO.doc),
    metadata: decodeEntries(parsed, VALUE_INFO.metadata),
  };
}

function dtype(parsed: Parsed, number: number): DType {
  return dtypeOfCode(parsed.safeInt(number) ?? 0) ?? 'undefined';
}

/** Undefined for a type of a kind that is newer than the IR. */
export function decodeType(message: Message): ValueType | undefined {
  const parsed = message.parse();
  for (const [number, read] of KINDS) {
    const part = parsed.sub(number);
    if (part !== undefined) return read(part.parse());
  }
  return undefined;
}

function element(parsed: Parsed, number: number): ValueType | undefined {
  const part = parsed.sub(number);
  return part && decodeType(part);
}

const KINDS: ReadonlyMap<number, (part: Parsed) => ValueType | undefined> = new Map<
  number,
  (part: Parsed) => ValueType | undefined
>([
  [TYPE.tensor, (p) => ({ kind: 'tensor', dtype: dtype(p, TYPE_PART.first), shape: shape(p) })],
  [TYPE.sparse, (p) => ({ kind: 'sparse', dtype: dtype(p, TYPE_PART.first), shape: shape(p) })],
  [
    TYPE.sequence,
    (p) => {
      const inner = element(p, TYPE_PART.first);
      return inner && { kind: 'sequence', element: inner };
    },
  ],
  [
    TYPE.optional,
    (p) => {
      const inner = element(p, TYPE_PART.first);
      return inner && { kind: 'optional', element: inner };
    },
  ],
  [
    TYPE.map,
    (p) => {
      const value = element(p, TYPE_PART.second);
      return value && { kind: 'map', key: dtype(p, TYPE_PART.first), value };
    },
  ],
  [
    TYPE.opaque,
    (p) => ({
      kind: 'opaque',
      domain: p.string(TYPE_PART.first) ?? '',
      name: p.string(TYPE_PART.second) ?? '',
    }),
  ],
]);

function shape(part: Parsed): Shape | null {
  const message = part.sub(TYPE_PART.second);
  if (message === undefined) return null;
  return message
    .parse()
    .subs(SHAPE.dim)
    .map((dim): Dim => {
      const parsed = dim.parse();
      const param = parsed.string(DIM.param);
      if (param !== undefined && param !== '') return param;
      const value = parsed.safeInt(DIM.value);
      return value === undefined || value < 0 ? null : value;
    });
}
