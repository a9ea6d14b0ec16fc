/** Attributes to `AttributeProto`. */
import { ATTRIBUTE_CODES, type Attribute, graphsOf } from '../attribute.js';
import type { Graph } from '../graph.js';
import { encodeSparse, encodeTensor, type Placement } from './encode-tensor.js';
import { encodeType } from './encode-type.js';
import { ATTRIBUTE, TENSOR } from './fields.js';
import { originOf } from './origin.js';
import { Rewriter } from './rewrite.js';
import {
  bytesField,
  concat,
  type Encoded,
  floatField,
  intField,
  messageField,
  type Rope,
  ropeField,
  stringField,
} from './rope.js';
import type { Message } from './wire.js';

/** What encoding an attribute needs from the graph around it. */
export interface AttributeContext {
  readonly placement: Placement;
  graph(graph: Graph): Encoded;
}

type Kind = Exclude<Attribute['type'], 'ref'>;
interface Form<A extends Attribute = Attribute> {
  readonly code: number;
  readonly field: number;
  write(attribute: A, context: AttributeContext): Rope;
}

const utf8 = new TextEncoder();

function tensorBody(
  tensor: Parameters<typeof encodeTensor>[0],
  name: string | undefined,
  context: AttributeContext,
): Encoded {
  const stored = originOf(tensor)?.parse().string(TENSOR.name);
  return encodeTensor(tensor, name ?? stored ?? '', context.placement.attribute(tensor));
}

type Forms = { readonly [K in Kind]: Form<Extract<Attribute, { type: K }>> };

const string = (field: number, value: Uint8Array): Rope => bytesField(field, value);

const FORMS: Forms = {
  float: { code: ATTRIBUTE_CODES.float, field: ATTRIBUTE.f, write: (a) => floatField(ATTRIBUTE.f, a.value) },
  int: { code: ATTRIBUTE_CODES.int, field: ATTRIBUTE.i, write: (a) => intField(ATTRIBUTE.i, a.value) },
  string: {
    code: ATTRIBUTE_CODES.string,
    field: ATTRIBUTE.s,
    write: (a) => string(ATTRIBUTE.s, utf8.encode(a.value)),
  },
  bytes: { code: ATTRIBUTE_CODES.string, field: ATTRIBUTE.s, write: (a) => string(ATTRIBUTE.s, a.value) },
  tensor: {
    code: ATTRIBUTE_CODES.tensor,
    field: ATTRIBUTE.t,
    write: (a, context) => messageField(ATTRIBUTE.t, tensorBody(a.value, a.name, context)),
  },
  graph: {
    code: ATTRIBUTE_CODES.graph,
    field: ATTRIBUTE.g,
    write: (a, context) => messageField(ATTRIBUTE.g, context.graph(a.value)),
  },
  sparse: {
    code: ATTRIBUTE_CODES.sparse,
    field: ATTRIBUTE.sparse,
    write: (a, { placement }) => messageField(ATTRIBUTE.sparse, encodeSparse(a.value, placement)),
  },
  typeProto: {
    code: ATTRIBUTE_CODES.typeProto,
    field: ATTRIBUTE.tp,
    write: (a) => ropeField(ATTRIBUTE.tp, encodeType(a.value)),
  },
  floats: {
    code: ATTRIBUTE_CODES.floats,
    field: ATTRIBUTE.floats,
    write: (a) => concat(a.value.map((v) => floatField(ATTRIBUTE.floats, v))),
  },
  ints: {
    code: ATTRIBUTE_CODES.ints,
    field: ATTRIBUTE.ints,
    write: (a) => concat(a.value.map((v) => intField(ATTRIBUTE.ints, v))),
  },
  strings: {
    code: ATTRIBUTE_CODES.strings,
    field: ATTRIBUTE.strings,
    write: (a) => concat(a.value.map((v) => stringField(ATTRIBUTE.strings, v))),
  },
  byteStrings: {
    code: ATTRIBUTE_CODES.strings,
    field: ATTRIBUTE.strings,
    write: (a) => concat(a.value.map((v) => string(ATTRIBUTE.strings, v))),
  },
  tensors: {
    code: ATTRIBUTE_CODES.tensors,
    field: ATTRIBUTE.tensors,
    write: (a, context) =>
      concat(a.value.map((t) => messageField(ATTRIBUTE.tensors, tensorBody(t, undefined, context)))),
  },
  graphs: {
    code: ATTRIBUTE_CODES.graphs,
    field: ATTRIBUTE.graphs,
    write: (a, context) => concat(a.value.map((g) => messageField(ATTRIBUTE.graphs, context.graph(g)))),
  },
  sparses: {
    code: ATTRIBUTE_CODES.sparses,
    field: ATTRIBUTE.sparses,
    write: (a, { placement }) =>
      concat(a.value.map((s) => messageField(ATTRIBUTE.sparses, encodeSparse(s, placement)))),
  },
  typeProtos: {
    code: ATTRIBUTE_CODES.typeProtos,
    field: ATTRIBUTE.typeProtos,
    write: (a) => concat(a.value.map((t) => ropeField(ATTRIBUTE.typeProtos, encodeType(t)))),
  },
};

const VALUE_FIELDS = [...new Set(Object.values(FORMS).map((form) => form.field))];

/** @param template the attribute of the same name before it was replaced; its other fields are kept. */
export function encodeAttribute(
  name: string,
  attribute: Attribute,
  context: AttributeContext,
  template?: Message,
): Encoded {
  const own = originOf(attribute);
  const rewriter = new Rewriter(own ?? template).string(ATTRIBUTE.name, name);
  if (attribute.type === 'ref') {
    if (own === undefined)
      rewriter
        .drop(...VALUE_FIELDS)
        .string(ATTRIBUTE.ref, attribute.value)
        .int(ATTRIBUTE.type, attribute.attrType);
    return rewriter.done();
  }
  const form = FORMS[attribute.type] as Form;
  // Attributes do not change, they are replaced; only graphs inside them do.
  if (own !== undefined && !holdsMessages(attribute)) return rewriter.done();
  if (own === undefined) rewriter.drop(...VALUE_FIELDS, ATTRIBUTE.ref).int(ATTRIBUTE.type, form.code);
  return rewriter.set(form.field, form.write(attribute, context)).done();
}

/** Attributes whose encoding depends on more than the attribute object itself. */
function holdsMessages(attribute: Attribute): boolean {
  return (
    graphsOf(attribute).length > 0 ||
    attribute.type === 'tensor' ||
    attribute.type === 'tensors' ||
    attribute.type === 'sparse' ||
    attribute.type === 'sparses'
  );
}
