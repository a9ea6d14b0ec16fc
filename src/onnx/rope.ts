/**
 * Encoded output as a list of pieces: bytes we made, ranges copied from a source, and payloads read while writing.
 * Lengths are known before any payload is touched.
 */
import type { TensorData } from '../tensor.js';
import { BYTES, FIXED32, type Field, type Message, type Span, VARINT } from './wire.js';

export type Chunk =
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | ({ readonly kind: 'span' } & Span)
  | { readonly kind: 'data'; readonly data: TensorData };

export class Rope {
  readonly chunks: Chunk[] = [];
  length = 0;

  bytes(bytes: Uint8Array): this {
    if (bytes.length === 0) return this;
    this.chunks.push({ kind: 'bytes', bytes });
    this.length += bytes.length;
    return this;
  }

  /** Neighbouring ranges of one source become one. */
  span({ source, start, end }: Span): this {
    if (start === end) return this;
    const last = this.chunks.at(-1);
    if (last?.kind === 'span' && last.source === source && last.end === start)
      this.chunks[this.chunks.length - 1] = { kind: 'span', source, start: last.start, end };
    else this.chunks.push({ kind: 'span', source, start, end });
    this.length += end - start;
    return this;
  }

  data(data: TensorData): this {
    if (data.byteLength === 0) return this;
    this.chunks.push({ kind: 'data', data });
    this.length += data.byteLength;
    return this;
  }

  rope(other: Rope): this {
    for (const chunk of other.chunks) {
      if (chunk.kind === 'span') this.span(chunk);
      else {
        this.chunks.push(chunk);
        this.length += chunk.kind === 'bytes' ? chunk.bytes.length : chunk.data.byteLength;
      }
    }
    return this;
  }

  /** True when both copy the same ranges of the same sources and nothing else. */
  sameSpans(other: Rope): boolean {
    if (this.length !== other.length || this.chunks.length !== other.chunks.length) return false;
    return this.chunks.every((a, i) => {
      const b = other.chunks[i] as Chunk;
      return (
        a.kind === 'span' &&
        b.kind === 'span' &&
        a.source === b.source &&
        a.start === b.start &&
        a.end === b.end
      );
    });
  }
}

export function ropeOfFields(fields: readonly Field[]): Rope {
  const rope = new Rope();
  for (const field of fields) rope.span(field);
  return rope;
}

const utf8 = new TextEncoder();

export function varint(value: number | bigint): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  while (rest >= 0x80n) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

export function intField(number: number, value: number | bigint): Rope {
  return new Rope().bytes(varint(number * 8 + VARINT)).bytes(varint(value));
}

export function floatField(number: number, value: number): Rope {
  return new Rope().bytes(varint(number * 8 + FIXED32)).bytes(floats([value]));
}

export function bytesField(number: number, value: Uint8Array): Rope {
  return new Rope()
    .bytes(varint(number * 8 + BYTES))
    .bytes(varint(value.length))
    .bytes(value);
}

export function stringField(number: number, value: string): Rope {
  return bytesField(number, utf8.encode(value));
}

export function ropeField(number: number, body: Rope): Rope {
  return new Rope()
    .bytes(varint(number * 8 + BYTES))
    .bytes(varint(body.length))
    .rope(body);
}

export function dataField(number: number, data: TensorData): Rope {
  return new Rope()
    .bytes(varint(number * 8 + BYTES))
    .bytes(varint(data.byteLength))
    .data(data);
}

/** Little-endian float32 values. */
export function floats(values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setFloat32(i * 4, value, true);
  return bytes;
}

export function concat(ropes: Iterable<Rope>): Rope {
  const all = new Rope();
  for (const rope of ropes) all.rope(rope);
  return all;
}

/** A message ready to be put in a field. `same` means: exactly the bytes it was decoded from. */
export interface Encoded {
  readonly body: Rope;
  readonly origin: Message | undefined;
  readonly same: boolean;
}

/** The message as field `number` of its parent; the original tag and length are kept with an unchanged body. */
export function messageField(number: number, { body, origin, same }: Encoded): Rope {
  const from = origin?.from;
  if (same && from !== undefined && from.length > 0 && from.every((f) => f.number === number))
    return ropeOfFields(from);
  return ropeField(number, body);
}
