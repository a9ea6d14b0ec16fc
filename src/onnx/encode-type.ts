/** Types to `TypeProto`, and the rule that decides whether a declaration of the file still stands. */
import { boundsOf, subDims } from '../dims.js';
import { type Dim, DTYPE_CODES, type Shape, type ValueType } from '../types.js';
import { decodeValueInfo } from './decode-type.js';
import { DIM, SHAPE, TYPE, TYPE_PART, VALUE_INFO } from './fields.js';
import { Rewriter } from './rewrite.js';
import { concat, type Encoded, intField, Rope, ropeField, stringField } from './rope.js';
import type { Message } from './wire.js';

/** What a `ValueInfoProto` says. `undefined` texts leave those of the original alone. */
export interface InfoText {
  readonly doc?: string | undefined;
  readonly metadata: ReadonlyMap<string, string>;
}

/** @param before type that the file as a whole gave the value; asked when the declaration contradicts `type`. */
export function encodeValueInfo(
  name: string,
  type: ValueType | undefined,
  texts: InfoText | undefined,
  origin: Message | undefined,
  before: () => ValueType | undefined = () => undefined,
): Encoded {
  const rewriter = new Rewriter(origin).string(VALUE_INFO.name, name);
  const declared = origin && decodeValueInfo(origin).type;
  if (origin !== undefined && (type === undefined || stillTrue(declared, type) || sameType(before(), type)))
    rewriter.keep(VALUE_INFO.type);
  else
    rewriter.set(
      VALUE_INFO.type,
      type === undefined ? new Rope() : ropeField(VALUE_INFO.type, encodeType(type)),
    );
  if (texts !== undefined) {
    rewriter.string(VALUE_INFO.doc, texts.doc);
    rewriter.entries(VALUE_INFO.metadata, texts.metadata);
  }
  return rewriter.done();
}

/** Files may contradict themselves; what they say stays as long as nobody learned better. */
function sameType(a: ValueType | undefined, b: ValueType): boolean {
  return a !== undefined && JSON.stringify(a) === JSON.stringify(b);
}

/** A declaration stands unless it contradicts the type now known; what inference merely refines is left as declared. */
function stillTrue(declared: ValueType | undefined, now: ValueType): boolean {
  if (declared === undefined) return true;
  switch (now.kind) {
    case 'tensor':
    case 'sparse':
      return (
        declared.kind === now.kind &&
        declared.dtype === now.dtype &&
        shapeStillTrue(declared.shape, now.shape)
      );
    case 'sequence':
    case 'optional':
      return declared.kind === now.kind && stillTrue(declared.element, now.element);
    case 'map':
      return declared.kind === 'map' && declared.key === now.key && stillTrue(declared.value, now.value);
    case 'opaque':
      return declared.kind === 'opaque' && declared.domain === now.domain && declared.name === now.name;
  }
}

function shapeStillTrue(declared: Shape | null, now: Shape | null): boolean {
  if (declared === null) return true;
  if (now === null || declared.length !== now.length) return false;
  return declared.every((dim, i) => dimStillTrue(dim, now[i] ?? null));
}

/**
 * A symbol stands for any size, and inference may know it by another name; but not for a size that differs from the
 * symbol's own, and not for one that a rewrite left unknown.
 */
function dimStillTrue(declared: Dim, now: Dim): boolean {
  if (declared === null || typeof declared === 'number') return declared === null || declared === now;
  if (now === null || typeof now === 'number' || now === declared) return now !== null;
  const difference = subDims(now, declared);
  if (difference === null || difference === 0) return true;
  const { min, max } = boundsOf(difference);
  return min < 0 && max > 0;
}

export function encodeType(type: ValueType): Rope {
  switch (type.kind) {
    case 'tensor':
      return ropeField(TYPE.tensor, tensorBody(type.dtype, type.shape));
    case 'sparse':
      return ropeField(TYPE.sparse, tensorBody(type.dtype, type.shape));
    case 'sequence':
      return ropeField(TYPE.sequence, ropeField(TYPE_PART.first, encodeType(type.element)));
    case 'optional':
      return ropeField(TYPE.optional, ropeField(TYPE_PART.first, encodeType(type.element)));
    case 'map':
      return ropeField(
        TYPE.map,
        concat([
          intField(TYPE_PART.first, DTYPE_CODES[type.key]),
          ropeField(TYPE_PART.second, encodeType(type.value)),
        ]),
      );
    case 'opaque':
      return ropeField(
        TYPE.opaque,
        concat([stringField(TYPE_PART.first, type.domain), stringField(TYPE_PART.second, type.name)]),
      );
  }
}

function tensorBody(dtype: keyof typeof DTYPE_CODES, shape: Shape | null): Rope {
  const body = intField(TYPE_PART.first, DTYPE_CODES[dtype]);
  if (shape !== null)
    body.rope(ropeField(TYPE_PART.second, concat(shape.map((dim) => ropeField(SHAPE.dim, encodeDim(dim))))));
  return body;
}

function encodeDim(dim: Dim): Rope {
  if (typeof dim === 'number') return intField(DIM.value, dim);
  return dim === null ? new Rope() : stringField(DIM.param, dim);
}
