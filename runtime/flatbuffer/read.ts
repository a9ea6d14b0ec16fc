/**
 * Reads flatbuffers by position, from files too large to load. Nothing in the file is trusted: every offset, count and
 * size is checked against the bytes that are there before it is followed.
 */
import { fail } from '../../src/errors.js';
import { FileData } from '../../src/onnx/index.js';
import type { Source } from '../../src/onnx/source.js';
import type { TensorData } from '../../src/tensor.js';

/** The characters at bytes 4 to 8, or undefined where the file is shorter. */
export function identifierOf(source: Source): string | undefined {
  return source.length < 8 ? undefined : String.fromCharCode(...source.view(4, 8));
}

/** The root table of a buffer. Throws E_INVALID_DATA. */
export function rootTable(source: Source, remedy: string): TableReader {
  const bytes = new Bytes(source, remedy);
  return new TableReader(bytes, bytes.target(0));
}

/** What the verifier of the official library allows: entries may point to one table many times. */
const MAX_TABLES = 1_000_000;

/** Checked access to the bytes of one buffer. */
class Bytes {
  #tables = 0;

  constructor(
    readonly source: Source,
    readonly remedy: string,
  ) {}

  view(at: number, length: number): DataView {
    if (at < 0 || at + length > this.source.length) this.broken(at);
    const bytes = this.source.view(at, at + length);
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Called for every table that is opened. */
  countTable(at: number): void {
    if (++this.#tables > MAX_TABLES) this.broken(at);
  }

  uint32(at: number): number {
    return this.view(at, 4).getUint32(0, true);
  }

  /** Where the offset at `at` leads. */
  target(at: number): number {
    const offset = this.uint32(at);
    if (offset === 0 || at + offset + 4 > this.source.length) this.broken(at);
    return at + offset;
  }

  /** Number of elements of the vector at `at`, all of which are inside the file. */
  count(at: number, width: number): number {
    const count = this.uint32(at);
    if (at + 4 + count * width > this.source.length) this.broken(at);
    return count;
  }

  text(at: number): string {
    const length = this.count(at, 1);
    const { buffer, byteOffset } = this.view(at + 4, length);
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array(buffer, byteOffset, length));
    } catch {
      return this.broken(at);
    }
  }

  broken(at: number): never {
    return fail('E_INVALID_DATA', {
      message: `The file is damaged: an entry at byte ${at} leads outside of it, or is malformed`,
      where: this.source.label,
      remedy: this.remedy,
    });
  }
}

/** One table; fields by id. Absent fields read as undefined. */
export class TableReader {
  readonly #vtable: number;
  /** Bytes of the vtable, and of the table. */
  readonly #length: number;
  readonly #size: number;

  constructor(
    readonly bytes: Bytes,
    /** Position in the file. */
    readonly at: number,
  ) {
    bytes.countTable(at);
    this.#vtable = at - bytes.view(at, 4).getInt32(0, true);
    const head = bytes.view(this.#vtable, 4);
    this.#length = head.getUint16(0, true);
    this.#size = head.getUint16(2, true);
    if (this.#length < 4 || this.#length % 2 !== 0 || this.#size < 4) bytes.broken(this.#vtable);
    bytes.view(at, this.#size);
    bytes.view(this.#vtable, this.#length);
  }

  int32(id: number): number | undefined {
    return this.#scalar(id, 4)?.getInt32(0, true);
  }

  float32(id: number): number | undefined {
    return this.#scalar(id, 4)?.getFloat32(0, true);
  }

  int64(id: number): bigint | undefined {
    return this.#scalar(id, 8)?.getBigInt64(0, true);
  }

  bool(id: number): boolean {
    return (this.#scalar(id, 1)?.getUint8(0) ?? 0) !== 0;
  }

  string(id: number): string | undefined {
    const at = this.#target(id);
    return at === undefined ? undefined : this.bytes.text(at);
  }

  table(id: number): TableReader | undefined {
    const at = this.#target(id);
    return at === undefined ? undefined : new TableReader(this.bytes, at);
  }

  tables(id: number): TableReader[] | undefined {
    const at = this.#target(id);
    if (at === undefined) return undefined;
    const { bytes } = this;
    return Array.from(
      { length: bytes.count(at, 4) },
      (_, i) => new TableReader(bytes, bytes.target(at + 4 + 4 * i)),
    );
  }

  /** `most` elements at most. */
  int64s(id: number, most = Number.POSITIVE_INFINITY): bigint[] | undefined {
    const at = this.#target(id);
    if (at === undefined) return undefined;
    const count = this.bytes.count(at, 8);
    if (count > most) this.bytes.broken(at);
    const view = this.bytes.view(at + 4, 8 * count);
    return Array.from({ length: view.byteLength / 8 }, (_, i) => view.getBigInt64(8 * i, true));
  }

  /** A handle on a vector of bytes, which are not read. */
  payload(id: number): TensorData | undefined {
    const at = this.#target(id);
    return at === undefined ? undefined : new FileData(this.bytes.source, at + 4, this.bytes.count(at, 1));
  }

  #scalar(id: number, width: number): DataView | undefined {
    const offset = this.#offset(id, width);
    return offset === undefined ? undefined : this.bytes.view(offset, width);
  }

  #target(id: number): number | undefined {
    const offset = this.#offset(id, 4);
    return offset === undefined ? undefined : this.bytes.target(offset);
  }

  #offset(id: number, width: number): number | undefined {
    const slot = 4 + 2 * id;
    if (slot + 2 > this.#length) return undefined;
    const offset = this.bytes.view(this.#vtable + slot, 2).getUint16(0, true);
    if (offset === 0) return undefined;
    if (offset < 4 || offset + width > this.#size) this.bytes.broken(this.at);
    return this.at + offset;
  }
}
