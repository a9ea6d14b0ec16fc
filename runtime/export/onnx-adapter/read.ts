/**
 * Reads `.onnx_adapter`. Every offset of the file is checked before it is followed, which the FlatBuffers library for
 * JavaScript does not do; payloads stay in the file until they are asked for.
 */
import { fail } from '../../../src/errors.js';
import { FileData } from '../../../src/onnx/index.js';
import { FileSource, MemorySource, type Source } from '../../../src/onnx/source.js';
import type { Tensor } from '../../../src/tensor.js';
import { byteSize, countOf, dtypeOfCode } from '../../../src/types.js';
import { ADAPTER, FORMAT_VERSION, IDENTIFIER, type OnnxAdapter, PARAMETER, TYPES } from './schema.js';

/** Axes above this are no tensor of a model. */
const MAX_AXES = 64;

/** Whether a file begins as an `.onnx_adapter` does, whatever its name is. */
export function isOnnxAdapter(path: string): boolean {
  const source = new FileSource(path);
  try {
    return isMarked(source);
  } finally {
    source.close();
  }
}

function isMarked(source: Source): boolean {
  return source.length >= 8 && String.fromCharCode(...source.read(4, 8)) === IDENTIFIER;
}

/** Throws E_INVALID_DATA for a file that is malformed in any way, E_UNSUPPORTED for another version of the format, E_IO. */
export function readOnnxAdapter(path: string): OnnxAdapter {
  return parse(new FileSource(path));
}

export function decodeOnnxAdapter(bytes: Uint8Array, label = 'onnx_adapter in memory'): OnnxAdapter {
  return parse(new MemorySource(bytes, label));
}

function parse(source: Source): OnnxAdapter {
  const buffer = new Bounded(source);
  if (!isMarked(source)) buffer.corrupt(`it does not begin with the mark '${IDENTIFIER}'`);
  const root = buffer.table(buffer.follow(0, 'the root table'), 'the root table');
  const format = root.int(ADAPTER.formatVersion);
  if (format !== FORMAT_VERSION)
    fail('E_UNSUPPORTED', {
      message: `The file has format version ${format}; version ${FORMAT_VERSION} is what there is`,
      where: source.label,
      remedy: 'Write the adapter again with a current tool',
    });
  const vector = root.vector(ADAPTER.parameters, 4, 'parameters') ?? buffer.corrupt('it has no parameters');
  const tensors = new Map<string, Tensor>();
  for (let i = 0; i < vector.count; i++) {
    const at = buffer.follow(vector.start + 4 * i, `parameter ${i}`);
    const { name, tensor } = parameter(buffer, buffer.table(at, `parameter ${i}`), i);
    if (tensors.has(name)) buffer.corrupt(`it has two parameters '${name}'`);
    tensors.set(name, tensor);
  }
  return {
    adapterVersion: root.int(ADAPTER.adapterVersion),
    modelVersion: root.int(ADAPTER.modelVersion),
    tensors,
  };
}

function parameter(
  buffer: Bounded,
  table: Table,
  index: number,
): { readonly name: string; readonly tensor: Tensor } {
  const named = table.vector(PARAMETER.name, 1, `the name of parameter ${index}`);
  const name = named === undefined || named.count === 0 ? undefined : buffer.text(named);
  if (name === undefined) return buffer.corrupt(`parameter ${index} has no name`);
  const axes = table.vector(PARAMETER.dims, 8, `the dims of '${name}'`);
  if (axes === undefined || axes.count === 0 || axes.count > MAX_AXES)
    return buffer.corrupt(`'${name}' has ${axes?.count ?? 0} dims`);
  const dims = Array.from({ length: axes.count }, (_, i) => buffer.size(axes.start + 8 * i, name));
  const code = table.int(PARAMETER.dataType);
  const dtype = dtypeOfCode(code);
  if (dtype === undefined || !TYPES.has(dtype))
    return buffer.corrupt(`'${name}' has element type ${dtype ?? code}, which the format lacks`);
  const raw = table.vector(PARAMETER.rawData, 1, `the data of '${name}'`) ?? { start: 0, count: 0 };
  const expected = byteSize(dtype, countOf(dims));
  if (raw.count !== expected)
    buffer.corrupt(`'${name}' has ${raw.count} bytes, ${dtype}[${dims.join(', ')}] takes ${expected}`);
  return { name, tensor: { dtype, dims, data: new FileData(buffer.source, raw.start, raw.count) } };
}

/** A run of elements behind their count. */
interface Run {
  readonly start: number;
  readonly count: number;
}

/** Little-endian numbers at positions that are inside the file, or an error. */
class Bounded {
  constructor(readonly source: Source) {}

  corrupt(why: string): never {
    return fail('E_INVALID_DATA', {
      message: `The file is no readable .onnx_adapter: ${why}`,
      where: this.source.label,
      remedy: 'It is truncated or damaged; write it again',
    });
  }

  /** The position that the unsigned offset at `at` leads to. */
  follow(at: number, what: string): number {
    const offset = this.#view(at, 4, what).getUint32(0, true);
    const to = at + offset;
    if (offset === 0 || to + 4 > this.source.length) this.corrupt(`${what} lies outside of it`);
    return to;
  }

  table(at: number, what: string): Table {
    const back = this.#view(at, 4, what).getInt32(0, true);
    const vtable = at - back;
    const head = this.#view(vtable, 4, `${what}'s list of fields`);
    const [length, size] = [head.getUint16(0, true), head.getUint16(2, true)];
    if (length < 4 || length % 2 !== 0 || size < 4) this.corrupt(`${what} has a malformed list of fields`);
    const fields = this.#view(vtable, length, `${what}'s list of fields`);
    this.#view(at, size, what);
    return new Table(this, at, size, what, (field) =>
      4 + 2 * field + 2 <= length ? fields.getUint16(4 + 2 * field, true) : 0,
    );
  }

  run(at: number, width: number, what: string): Run {
    const count = this.#view(at, 4, what).getUint32(0, true);
    if (at + 4 + count * width > this.source.length) this.corrupt(`${what} ends outside of it`);
    return { start: at + 4, count };
  }

  int(at: number, what: string): number {
    return this.#view(at, 4, what).getInt32(0, true);
  }

  /** A non-negative int64 that a tensor can have as a size. */
  size(at: number, name: string): number {
    const value = this.#view(at, 8, `the dims of '${name}'`).getBigInt64(0, true);
    if (value < 0n || value > 2n ** 40n) this.corrupt(`'${name}' has a dim of ${value}`);
    return Number(value);
  }

  text({ start, count }: Run): string {
    try {
      return text(this.source.read(start, start + count));
    } catch {
      return this.corrupt('a name is no UTF-8');
    }
  }

  #view(at: number, size: number, what: string): DataView {
    if (at < 0 || at + size > this.source.length) this.corrupt(`${what} lies outside of it`);
    const bytes = this.source.view(at, at + size);
    return new DataView(bytes.buffer, bytes.byteOffset, size);
  }
}

class Table {
  constructor(
    readonly buffer: Bounded,
    readonly at: number,
    readonly size: number,
    readonly what: string,
    /** Offset of a field from the table's start; 0 where it is absent. */
    readonly field: (index: number) => number,
  ) {}

  /** 0 where it is absent, the default of the schema. */
  int(index: number): number {
    const at = this.#at(index);
    return at === undefined ? 0 : this.buffer.int(at, this.what);
  }

  vector(index: number, width: number, what: string): Run | undefined {
    const at = this.#at(index);
    return at === undefined ? undefined : this.buffer.run(this.buffer.follow(at, what), width, what);
  }

  #at(index: number): number | undefined {
    const offset = this.field(index);
    if (offset === 0) return undefined;
    if (offset + 4 > this.size) this.buffer.corrupt(`${this.what} is shorter than its fields`);
    return this.at + offset;
  }
}

function text(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
}
