/** Tensor payloads as handles on encoded bytes. All present `raw_data` layout: little-endian, packed. */
import type { SparseTensor } from '../attribute.js';
import { fail } from '../errors.js';
import type { TensorData } from '../tensor.js';
import { FileSource, MemorySource, type Source } from './source.js';
import { FIXED32, FIXED64, type Field, VARINT, varintAt } from './wire.js';

function checkRange(data: TensorData, offset: number, length: number, where: string): void {
  if (offset < 0 || length < 0 || offset + length > data.byteLength)
    fail('E_INVALID_GRAPH', {
      message: `Read of ${length} bytes from offset ${offset} of a payload of ${data.byteLength} bytes`,
      where,
    });
}

/** A run of bytes inside a file or buffer: `raw_data`, or a whole external tensor. */
export class FileData implements TensorData {
  constructor(
    readonly source: Source,
    readonly offset: number,
    readonly byteLength: number,
  ) {}

  /** The file, when the bytes are in one: `read(offset + i)` equals byte `this.offset + i` of it. */
  get path(): string | undefined {
    return this.source instanceof FileSource ? this.source.path : undefined;
  }

  get inline(): Uint8Array | undefined {
    return this.source instanceof MemorySource
      ? this.source.read(this.offset, this.offset + this.byteLength)
      : undefined;
  }

  read(offset: number, length: number): Uint8Array {
    checkRange(this, offset, length, this.source.label);
    return this.source.read(this.offset + offset, this.offset + offset + length);
  }
}

/** Bytes of a payload from `offset`, as many as `target` takes: in `target` where they come from a file, else in place. */
export function readPayload(target: Uint8Array, data: TensorData, offset: number): Uint8Array {
  if (!(data instanceof FileData && data.source instanceof FileSource))
    return data.read(offset, target.length);
  checkRange(data, offset, target.length, data.source.label);
  data.source.readInto(target, data.offset + offset);
  return target;
}

/** Fills `target` with bytes of a payload from `offset`; those of a file are read in another thread (see `FileSource`). */
export async function readAside(target: Uint8Array, data: TensorData, offset: number): Promise<void> {
  if (!(data instanceof FileData && data.source instanceof FileSource)) {
    target.set(data.read(offset, target.length));
    return;
  }
  checkRange(data, offset, target.length, data.source.label);
  await data.source.readAside(target, data.offset + offset);
}

/** A tensor in a file beside the model. */
export class ExternalData extends FileData {
  constructor(
    readonly file: FileSource,
    offset: number,
    byteLength: number,
    /** The `location` of the file, relative to `folder`. */
    readonly location: string,
    /** Folder of the model. */
    readonly folder: string,
  ) {
    super(file, offset, byteLength);
  }
}

/** External data of a model that was decoded from bytes: there is no folder to look in. */
export class UnlocatedData implements TensorData {
  constructor(
    readonly byteLength: number,
    readonly location: string,
    readonly where: string,
  ) {}
  read(): Uint8Array {
    fail('E_EXTERNAL_DATA', {
      message: `The tensor lives in '${this.location}', and the model was decoded from bytes without a path`,
      where: this.where,
      remedy: 'Pass the path of the model to decodeModel, or use readModel.',
    });
  }
}

/** Values in `int32_data`, `int64_data`, `uint64_data` (varints), `float_data` or `double_data`, packed or not. */
export class TypedData implements TensorData {
  #cache: WeakRef<Uint8Array> | undefined;

  constructor(
    readonly fields: readonly Field[],
    readonly byteLength: number,
    /** Bytes an entry takes in raw layout. */
    readonly unit: 1 | 2 | 4 | 8,
  ) {}

  read(offset: number, length: number): Uint8Array {
    checkRange(this, offset, length, 'a typed tensor field');
    let bytes = this.#cache?.deref();
    if (bytes === undefined) {
      bytes = this.#expand();
      this.#cache = new WeakRef(bytes);
    }
    return bytes.subarray(offset, offset + length);
  }

  #expand(): Uint8Array {
    const bytes = new Uint8Array(this.byteLength);
    const view = new DataView(bytes.buffer);
    const { unit } = this;
    let to = 0;
    for (const field of this.fields) {
      if (!isVarints(field)) {
        const part = field.source.read(field.body, field.end);
        bytes.set(part, to);
        to += part.length;
        continue;
      }
      for (let at = field.body; at < field.end; to += unit) {
        const { value, next } = varintAt(field.source, at, field.end);
        if (unit === 8) view.setBigUint64(to, value, true);
        else if (unit === 4) view.setUint32(to, Number(BigInt.asUintN(32, value)), true);
        else if (unit === 2) view.setUint16(to, Number(BigInt.asUintN(16, value)), true);
        else view.setUint8(to, Number(BigInt.asUintN(8, value)));
        at = next;
      }
    }
    return bytes;
  }
}

/** Field numbers of `TensorProto` that hold varints when packed. */
const VARINT_FIELDS: ReadonlySet<number> = new Set([5, 7, 11]);

function isVarints(field: Field): boolean {
  return field.wire === VARINT || VARINT_FIELDS.has(field.number);
}

/** Entries of a repeated numeric field, counted without decoding them. */
export function countEntries(fields: readonly Field[], unit: number): number {
  let count = 0;
  for (const field of fields) {
    if (field.wire === VARINT || field.wire === FIXED32 || field.wire === FIXED64) count++;
    else if (isVarints(field)) {
      for (let at = field.body; at < field.end; at++) if (field.source.byteAt(at) < 0x80) count++;
    } else count += (field.end - field.body) / unit;
  }
  return count;
}

/** A sparse constant seen as the dense tensor that its consumers read. */
export class SparseData implements TensorData {
  constructor(
    readonly byteLength: number,
    /** Bytes of one element. */
    readonly width: number,
    /** Flat element positions, one per value. */
    readonly positions: readonly number[],
    /** The form it is stored in. */
    readonly sparse: SparseTensor,
  ) {}

  read(offset: number, length: number): Uint8Array {
    checkRange(this, offset, length, 'a sparse tensor');
    const bytes = new Uint8Array(length);
    const { data } = this.sparse.values;
    const values = data.read(0, data.byteLength);
    this.positions.forEach((position, i) => {
      const start = position * this.width - offset;
      for (let b = Math.max(0, -start); b < this.width && start + b < length; b++)
        bytes[start + b] = values[i * this.width + b] as number;
    });
    return bytes;
  }
}
