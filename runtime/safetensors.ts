/**
 * safetensors, read lazily and written in a stream. Layout: u64 little-endian header length, a JSON header
 * `{name: {dtype, shape, data_offsets}, __metadata__: {text: text}}`, then the packed tensors. Format:
 * https://github.com/huggingface/safetensors (the checks here are those of its `Metadata::validate`, and more).
 */
import { readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fail } from '../src/errors.js';
import { atomicWrite } from '../src/onnx/index.js';
import { FileSource, MemorySource, reason, type Source } from '../src/onnx/source.js';
import { BytesData, payloadChunks, type Tensor, type TensorData } from '../src/tensor.js';
import { byteSize, countOf, type DType } from '../src/types.js';
import { duplicateKey } from './json-keys.js';

/** Headers above this are refused, as in the reference implementation. */
const MAX_HEADER = 100_000_000;
const METADATA = '__metadata__';

/** Names of element types in the format; the order is the reference writer's, which sorts by it, widest last. */
const DTYPES = {
  BOOL: 'bool',
  F4: 'float4e2m1',
  U8: 'uint8',
  I8: 'int8',
  F8_E5M2: 'float8e5m2',
  F8_E4M3: 'float8e4m3fn',
  F8_E8M0: 'float8e8m0',
  F8_E4M3FNUZ: 'float8e4m3fnuz',
  F8_E5M2FNUZ: 'float8e5m2fnuz',
  I16: 'int16',
  U16: 'uint16',
  F16: 'float16',
  BF16: 'bfloat16',
  I32: 'int32',
  U32: 'uint32',
  F32: 'float32',
  C64: 'complex64',
  F64: 'float64',
  I64: 'int64',
  U64: 'uint64',
} as const satisfies Record<string, DType>;

const NAMES = Object.keys(DTYPES) as (keyof typeof DTYPES)[];
const NAME_OF: ReadonlyMap<DType, keyof typeof DTYPES> = new Map(NAMES.map((name) => [DTYPES[name], name]));

export interface Safetensors {
  /** Handles by name, in file order; payloads are read when asked for. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** A byte range of a source. */
class RangeData implements TensorData {
  constructor(
    readonly source: Source,
    readonly start: number,
    readonly byteLength: number,
  ) {}
  read(offset: number, length: number): Uint8Array {
    const end = Math.min(offset + length, this.byteLength);
    return this.source.read(this.start + offset, this.start + end);
  }
}

/** Reads a `.safetensors` file, or a shard index `*.safetensors.index.json` with the files it names. */
export function readSafetensors(path: string): Safetensors {
  return path.endsWith('.json') ? readShards(path) : parse(new FileSource(path));
}

export function decodeSafetensors(bytes: Uint8Array, label = 'safetensors in memory'): Safetensors {
  return parse(new MemorySource(bytes, label));
}

function parse(source: Source): Safetensors {
  const where = source.label;
  if (source.length < 8) corrupt(where, `it has ${source.length} bytes, the header length alone takes 8`);
  const prefix = source.read(0, 8);
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > MAX_HEADER || 8 + Number(length) > source.length)
    corrupt(where, `the header claims ${length} bytes, the file has ${source.length}`);
  const start = 8 + Number(length);
  const header = parseHeader(source.read(8, start), where);
  const metadata = metadataOf(header[METADATA], where);
  const entries = Object.entries(header)
    .filter(([name]) => name !== METADATA)
    .map(([name, entry]) => entryOf(name, entry, where))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  const tensors = new Map<string, Tensor>();
  let position = 0;
  for (const { name, dtype, dims, begin, end } of entries) {
    if (begin !== position)
      corrupt(
        where,
        begin < position
          ? `tensor '${name}' overlaps the one before it`
          : `bytes ${position} to ${begin} belong to no tensor`,
      );
    position = end;
    tensors.set(name, { dtype, dims, data: new RangeData(source, start + begin, end - begin) });
  }
  if (start + position !== source.length)
    corrupt(where, `the tensors take ${position} bytes, the file holds ${source.length - start}`);
  return { tensors, metadata };
}

function parseHeader(bytes: Uint8Array, where: string): Record<string, unknown> {
  let header: unknown;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    header = JSON.parse(text);
  } catch (cause) {
    return corrupt(where, `the header is no JSON: ${reason(cause)}`);
  }
  if (!isRecord(header)) return corrupt(where, 'the header is no JSON object');
  const twice = duplicateKey(text);
  if (twice !== undefined) corrupt(where, `the header has two entries '${twice}'`);
  return header;
}

function metadataOf(value: unknown, where: string): Map<string, string> {
  if (value === undefined) return new Map();
  if (!isRecord(value)) return corrupt(where, `${METADATA} is no object`);
  const metadata = new Map<string, string>();
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') corrupt(where, `${METADATA} entry '${key}' is no text`);
    else metadata.set(key, text);
  }
  return metadata;
}

interface Entry {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly begin: number;
  readonly end: number;
}

function entryOf(name: string, entry: unknown, where: string): Entry {
  if (!isRecord(entry)) return corrupt(where, `the entry of tensor '${name}' is no object`);
  const { dtype: dtypeName, shape, data_offsets: offsets } = entry;
  if (typeof dtypeName !== 'string' || !Object.hasOwn(DTYPES, dtypeName))
    return corrupt(where, `tensor '${name}' has the unknown dtype ${JSON.stringify(dtypeName)}`);
  const dtype = DTYPES[dtypeName as keyof typeof DTYPES];
  if (!isSizes(shape)) return corrupt(where, `tensor '${name}' has no valid shape`);
  if (!isSizes(offsets) || offsets.length !== 2)
    return corrupt(where, `tensor '${name}' has no valid data_offsets`);
  const [begin, end] = offsets as [number, number];
  const count = countOf(shape);
  if (!Number.isSafeInteger(count)) return corrupt(where, `tensor '${name}' is larger than any file`);
  if (end - begin !== byteSize(dtype, count))
    return corrupt(
      where,
      `tensor '${name}' takes ${byteSize(dtype, count)} bytes as ${dtypeName}[${shape.join(', ')}], its offsets give ${end - begin}`,
    );
  return { name, dtype, dims: shape, begin, end };
}

function readShards(path: string): Safetensors {
  let index: unknown;
  try {
    index = JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    return corrupt(path, reason(cause));
  }
  const map = isRecord(index) ? index.weight_map : undefined;
  if (!isRecord(map)) return corrupt(path, 'the shard index has no weight_map');
  const shards = new Map<string, Safetensors>();
  const tensors = new Map<string, Tensor>();
  const metadata = new Map<string, string>();
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== 'string' || file === '' || basename(file) !== file)
      return corrupt(path, `the shard of '${name}' is not a file next to the index: ${JSON.stringify(file)}`);
    let shard = shards.get(file);
    if (shard === undefined) {
      shard = parse(new FileSource(join(dirname(path), file)));
      shards.set(file, shard);
      for (const [key, text] of shard.metadata) metadata.set(key, text);
    }
    const tensor = shard.tensors.get(name);
    if (tensor === undefined) corrupt(path, `shard '${file}' does not hold tensor '${name}'`);
    else tensors.set(name, tensor);
  }
  return { tensors, metadata };
}

/** Bytes of one tensor for the writer. */
export type WritableTensor = Pick<Tensor, 'dtype' | 'dims'> & { readonly data: TensorData | Uint8Array };

export interface WriteSafetensorsOptions {
  readonly metadata?: Readonly<Record<string, string>>;
  /** Replace an existing file. */
  readonly force?: boolean;
}

/** Writes tensors atomically; payloads stream one after another. Same tensors, same bytes, whatever their order. */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, WritableTensor>,
  options: WriteSafetensorsOptions = {},
): Promise<void> {
  const { header, order } = layout(tensors, options.metadata ?? {});
  await atomicWrite(path, { force: options.force ?? false }, async (sink) => {
    await sink.write(header);
    for (const tensor of order) for await (const chunk of chunksOf(tensor.data)) await sink.write(chunk);
  });
}

/** The same bytes in memory. */
export async function encodeSafetensors(
  tensors: ReadonlyMap<string, WritableTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<Uint8Array> {
  const { header, order } = layout(tensors, metadata);
  const chunks: Uint8Array[] = [header];
  for (const tensor of order) for await (const chunk of chunksOf(tensor.data)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function layout(tensors: ReadonlyMap<string, WritableTensor>, metadata: Readonly<Record<string, string>>) {
  const entries = [...tensors].map(([name, tensor]) => {
    const dtype = NAME_OF.get(tensor.dtype);
    if (dtype === undefined)
      fail('E_UNSUPPORTED', {
        message: `safetensors has no element type for ${tensor.dtype}`,
        where: name,
        remedy: 'Store the tensor in another dtype.',
      });
    if (name === METADATA)
      fail('E_INVALID_DATA', { message: `A tensor cannot be named ${METADATA}`, where: name });
    return { name, dtype, tensor };
  });
  // Wider element types first, so that every tensor starts at a multiple of its element size.
  entries.sort(
    (a, b) =>
      NAMES.indexOf(b.dtype) - NAMES.indexOf(a.dtype) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
  const header: Record<string, unknown> = Object.create(null);
  if (Object.keys(metadata).length > 0)
    header[METADATA] = Object.fromEntries(
      Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)),
    );
  let position = 0;
  for (const { name, dtype, tensor } of entries) {
    const size = byteSize(tensor.dtype, countOf(tensor.dims));
    if (size !== tensor.data.byteLength)
      fail('E_TYPE', {
        message: `The payload has ${tensor.data.byteLength} bytes, ${dtype}[${tensor.dims.join(', ')}] takes ${size}`,
        where: name,
      });
    header[name] = { dtype, shape: tensor.dims, data_offsets: [position, position + size] };
    position += size;
  }
  const json = Buffer.from(JSON.stringify(header), 'utf8');
  const padded = Math.ceil(json.length / 8) * 8;
  const bytes = Buffer.alloc(8 + padded, ' ');
  bytes.writeBigUInt64LE(BigInt(padded), 0);
  json.copy(bytes, 8);
  return { header: new Uint8Array(bytes), order: entries.map(({ tensor }) => tensor) };
}

function chunksOf(data: TensorData | Uint8Array): AsyncIterable<Uint8Array> {
  return payloadChunks(data instanceof Uint8Array ? new BytesData(data) : data);
}

function corrupt(where: string, what: string): never {
  return fail('E_INVALID_DATA', {
    message: `Not a valid safetensors file: ${what}`,
    where,
    remedy: 'Download or write the file again.',
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}
