/** `AttributeProto` to attributes. */
import { ATTRIBUTE_CODES, type Attribute } from '../attribute.js';
import type { Graph } from '../graph.js';
import { decodeSparse, decodeTensor, type FileContext } from './decode-tensor.js';
import { decodeType } from './decode-type.js';
import { ATTRIBUTE } from './fields.js';
import { setOrigin } from './origin.js';
import { corrupt, type Message, type Parsed } from './wire.js';

/** Decodes a subgraph with the names that are visible where the attribute stands. */
export type GraphReader = (message: Message) => Graph;

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function textOrUndefined(bytes: Uint8Array): string | undefined {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    return undefined;
  }
}

interface Place {
  readonly parsed: Parsed;
  readonly context: FileContext;
  readonly graph: GraphReader;
}

type Reader = (place: Place) => Attribute;

function required(parsed: Parsed, number: number): Message {
  return (
    parsed.sub(number) ??
    corrupt(parsed.message.place, 'An attribute lacks the value that its type announces')
  );
}

function types(messages: readonly Message[]) {
  return messages.map((m) => decodeType(m) ?? corrupt(m.place, 'An attribute holds an empty type'));
}

/** By type code, with the field that tells the type of attributes that lack a code (IR before 2). */
const READERS: readonly { code: number; field: number; read: Reader }[] = [
  {
    code: ATTRIBUTE_CODES.float,
    field: ATTRIBUTE.f,
    read: ({ parsed }) => ({ type: 'float', value: parsed.float(ATTRIBUTE.f) ?? 0 }),
  },
  {
    code: ATTRIBUTE_CODES.int,
    field: ATTRIBUTE.i,
    read: ({ parsed }) => ({ type: 'int', value: parsed.int(ATTRIBUTE.i) ?? 0n }),
  },
  {
    code: ATTRIBUTE_CODES.string,
    field: ATTRIBUTE.s,
    read: ({ parsed }) => {
      const bytes = parsed.bytes(ATTRIBUTE.s) ?? new Uint8Array(0);
      const value = textOrUndefined(bytes);
      return value === undefined ? { type: 'bytes', value: bytes.slice() } : { type: 'string', value };
    },
  },
  {
    code: ATTRIBUTE_CODES.tensor,
    field: ATTRIBUTE.t,
    read: ({ parsed, context }) => {
      const { name, tensor } = decodeTensor(required(parsed, ATTRIBUTE.t), context);
      return { type: 'tensor', value: tensor, ...(name === '' ? {} : { name }) };
    },
  },
  {
    code: ATTRIBUTE_CODES.graph,
    field: ATTRIBUTE.g,
    read: ({ parsed, graph }) => ({ type: 'graph', value: graph(required(parsed, ATTRIBUTE.g)) }),
  },
  {
    code: ATTRIBUTE_CODES.sparse,
    field: ATTRIBUTE.sparse,
    read: ({ parsed, context }) => ({
      type: 'sparse',
      value: decodeSparse(required(parsed, ATTRIBUTE.sparse), context).sparse,
    }),
  },
  {
    code: ATTRIBUTE_CODES.typeProto,
    field: ATTRIBUTE.tp,
    read: ({ parsed }) => ({ type: 'typeProto', value: types([required(parsed, ATTRIBUTE.tp)])[0]! }),
  },
  {
    code: ATTRIBUTE_CODES.floats,
    field: ATTRIBUTE.floats,
    read: ({ parsed }) => ({ type: 'floats', value: parsed.floats(ATTRIBUTE.floats) }),
  },
  {
    code: ATTRIBUTE_CODES.ints,
    field: ATTRIBUTE.ints,
    read: ({ parsed }) => ({ type: 'ints', value: parsed.ints(ATTRIBUTE.ints) }),
  },
  {
    code: ATTRIBUTE_CODES.strings,
    field: ATTRIBUTE.strings,
    read: ({ parsed }) => {
      const all = parsed.byteStrings(ATTRIBUTE.strings);
      const texts = all.map(textOrUndefined);
      return texts.every((t) => t !== undefined)
        ? { type: 'strings', value: texts }
        : { type: 'byteStrings', value: all.map((b) => b.slice()) };
    },
  },
  {
    code: ATTRIBUTE_CODES.tensors,
    field: ATTRIBUTE.tensors,
    read: ({ parsed, context }) => ({
      type: 'tensors',
      value: parsed.subs(ATTRIBUTE.tensors).map((m) => decodeTensor(m, context).tensor),
    }),
  },
  {
    code: ATTRIBUTE_CODES.graphs,
    field: ATTRIBUTE.graphs,
    read: ({ parsed, graph }) => ({ type: 'graphs', value: parsed.subs(ATTRIBUTE.graphs).map(graph) }),
  },
  {
    code: ATTRIBUTE_CODES.sparses,
    field: ATTRIBUTE.sparses,
    read: ({ parsed, context }) => ({
      type: 'sparses',
      value: parsed.subs(ATTRIBUTE.sparses).map((m) => decodeSparse(m, context).sparse),
    }),
  },
  {
    code: ATTRIBUTE_CODES.typeProtos,
    field: ATTRIBUTE.typeProtos,
    read: ({ parsed }) => ({ type: 'typeProtos', value: types(parsed.subs(ATTRIBUTE.typeProtos)) }),
  },
];

const BY_CODE = new Map(READERS.map((reader) => [reader.code, reader]));

export function decodeAttribute(
  message: Message,
  context: FileContext,
  graph: GraphReader,
): [string, Attribute] {
  const parsed = message.parse();
  const name = parsed.string(ATTRIBUTE.name) ?? '';
  const code = parsed.safeInt(ATTRIBUTE.type) ?? 0;
  const ref = parsed.string(ATTRIBUTE.ref);
  if (ref !== undefined && ref !== '')
    return [name, setOrigin({ type: 'ref', value: ref, attrType: code } as const, message)];
  const reader = code === 0 ? READERS.find((r) => parsed.all(r.field).length > 0) : BY_CODE.get(code);
  if (reader === undefined) corrupt(message.place, `Attribute '${name}' has no known type (code ${code})`);
  return [name, setOrigin(reader.read({ parsed, context, graph }), message)];
}
