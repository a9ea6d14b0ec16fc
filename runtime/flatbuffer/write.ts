/**
 * Writes flatbuffers front to back. Offsets of the format point forward, so tables, names and dimensions are laid out
 * first, in memory, and the payloads behind them, straight from where they are: a file costs the memory of its
 * names. (Builders that work back to front, as the official ones do, hold the whole buffer.)
 *
 * https://flatbuffers.dev/internals: little-endian; a table starts with the distance back to its vtable, which is
 * {own size, table size, offset of each field or 0} in uint16; vectors and strings start with a uint32 count.
 */
import { fail } from '../../src/errors.js';
import type { Sink } from '../../src/onnx/index.js';
import { payloadChunks, type TensorData } from '../../src/tensor.js';
import type { Reference, Scalar, TableNode } from './objects.js';

/** Largest buffer that readers of the format take: offsets of 31 bits. */
export const MAX_BUFFER = 2 ** 31 - 1;

const SIZES: Readonly<Record<Scalar['kind'], number>> = { int64: 8, int32: 4, float32: 4, bool: 1 };
/** Payloads start at multiples of this, whatever their element type. */
const PAYLOAD_ALIGNMENT = 8;

interface Payload {
  /** Of the count before the bytes. */
  readonly at: number;
  readonly data: TensorData;
}

export interface FlatBuffer {
  readonly byteLength: number;
  /** Writes all bytes, in order. */
  write(sink: Pick<Sink, 'write'>): Promise<void>;
}

/** Lays a buffer out. `identifier` has four characters. Throws E_UNSUPPORTED above 2 GiB, with the remedy given. */
export function layOut(root: TableNode, identifier: string, remedy: string): FlatBuffer {
  const layout = new Layout(remedy);
  layout.reserve(8);
  layout.ascii(4, identifier);
  layout.reference(0, root);
  return layout.finish();
}

/** A buffer in memory. */
export async function wholeOf(buffer: FlatBuffer): Promise<Uint8Array> {
  const whole = new Uint8Array(buffer.byteLength);
  let at = 0;
  await buffer.write({
    write: async (chunk) => {
      whole.set(chunk, at);
      at += chunk.length;
    },
  });
  return whole;
}

class Layout {
  #bytes = new Uint8Array(1024);
  #view = new DataView(this.#bytes.buffer);
  #end = 0;
  /** Positions of vtables by content; equal ones are shared. */
  readonly #vtables = new Map<string, number>();
  readonly #later: { readonly slot: number; readonly data: TensorData }[] = [];

  constructor(readonly remedy: string) {}

  reserve(count: number): number {
    const at = this.#end;
    this.#end += count;
    if (this.#end > MAX_BUFFER) tooLarge(this.remedy);
    if (this.#end > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(2 * this.#bytes.length, this.#end));
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return at;
  }

  ascii(at: number, characters: string): void {
    for (const [i, character] of [...characters].entries()) this.#bytes[at + i] = character.charCodeAt(0);
  }

  /** Fills the offset at `slot` with the distance to the object, which is laid out behind everything before it. */
  reference(slot: number, object: Reference): void {
    if (object.kind === 'bytes') this.#later.push({ slot, data: object.data });
    else this.#point(slot, this.#place(object));
  }

  finish(): FlatBuffer {
    this.#align(4);
    let end = this.#end;
    const payloads = this.#later.map(({ slot, data }): Payload => {
      const at = alignedTo(end + 4, PAYLOAD_ALIGNMENT) - 4;
      this.#point(slot, at);
      end = at + 4 + data.byteLength;
      if (end > MAX_BUFFER) tooLarge(this.remedy);
      return { at, data };
    });
    const head = this.#bytes.subarray(0, this.#end);
    const byteLength = alignedTo(end, 4);
    return { byteLength, write: (sink) => writeParts(sink, head, payloads, byteLength) };
  }

  #point(slot: number, target: number): void {
    this.#view.setUint32(slot, target - slot, true);
  }

  #align(to: number, shift = 0): void {
    this.reserve(alignedTo(this.#end + shift, to) - shift - this.#end);
  }

  #place(object: Exclude<Reference, { kind: 'bytes' }>): number {
    switch (object.kind) {
      case 'table':
        return this.#table(object);
      case 'string':
        return this.#string(object.value);
      case 'tables': {
        const at = this.#vector(object.items.length, 4);
        for (const [i, item] of object.items.entries()) this.reference(at + 4 + 4 * i, item);
        return at;
      }
      case 'int64s': {
        const at = this.#vector(object.items.length, 8);
        for (const [i, item] of object.items.entries())
          this.#view.setBigInt64(at + 4 + 8 * i, BigInt(item), true);
        return at;
      }
    }
  }

  #vector(count: number, width: number): number {
    this.#align(Math.max(4, width), 4);
    const at = this.reserve(4 + count * width);
    this.#view.setUint32(at, count, true);
    return at;
  }

  #string(value: string): number {
    const encoded = new TextEncoder().encode(value);
    this.#align(4);
    // With a zero behind, which the count leaves out.
    const at = this.reserve(4 + encoded.length + 1);
    this.#view.setUint32(at, encoded.length, true);
    this.#bytes.set(encoded, at + 4);
    return at;
  }

  #table({ fields }: TableNode): number {
    // Widest first: no gaps but the one behind the distance to the vtable.
    const placed = [...fields].sort(([, a], [, b]) => widthOf(b) - widthOf(a));
    const offsets = new Map<number, number>();
    let size = 4;
    for (const [id, field] of placed) {
      size = alignedTo(size, widthOf(field));
      offsets.set(id, size);
      size += widthOf(field);
    }
    const vtable = this.#vtable(offsets, size);
    this.#align(8);
    const at = this.reserve(size);
    this.#view.setInt32(at, at - vtable, true);
    for (const [id, field] of fields) {
      const slot = at + (offsets.get(id) ?? 0);
      switch (field.kind) {
        case 'int32':
          this.#view.setInt32(slot, field.value, true);
          break;
        case 'float32':
          this.#view.setFloat32(slot, field.value, true);
          break;
        case 'int64':
          this.#view.setBigInt64(slot, field.value, true);
          break;
        case 'bool':
          this.#view.setUint8(slot, field.value ? 1 : 0);
          break;
        default:
          this.reference(slot, field);
      }
    }
    return at;
  }

  #vtable(offsets: ReadonlyMap<number, number>, size: number): number {
    const slots = Math.max(-1, ...offsets.keys()) + 1;
    const words = [4 + 2 * slots, size];
    for (let id = 0; id < slots; id++) words.push(offsets.get(id) ?? 0);
    const known = this.#vtables.get(words.join());
    if (known !== undefined) return known;
    this.#align(2);
    const at = this.reserve(2 * words.length);
    for (const [i, word] of words.entries()) this.#view.setUint16(at + 2 * i, word, true);
    this.#vtables.set(words.join(), at);
    return at;
  }
}

async function writeParts(
  sink: Pick<Sink, 'write'>,
  head: Uint8Array,
  payloads: readonly Payload[],
  byteLength: number,
): Promise<void> {
  await sink.write(head);
  let at = head.length;
  const fill = async (to: number): Promise<void> => {
    if (to > at) await sink.write(new Uint8Array(to - at));
    at = to;
  };
  for (const payload of payloads) {
    await fill(payload.at);
    const count = new Uint8Array(4);
    new DataView(count.buffer).setUint32(0, payload.data.byteLength, true);
    await sink.write(count);
    for await (const chunk of payloadChunks(payload.data)) await sink.write(chunk);
    at += 4 + payload.data.byteLength;
  }
  await fill(byteLength);
}

function widthOf(field: Scalar | Reference): number {
  return field.kind in SIZES ? SIZES[field.kind as Scalar['kind']] : 4;
}

function alignedTo(position: number, alignment: number): number {
  return Math.ceil(position / alignment) * alignment;
}

function tooLarge(remedy: string): never {
  return fail('E_UNSUPPORTED', { message: 'A flatbuffer holds at most 2 GiB', remedy });
}
