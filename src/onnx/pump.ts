/** Moves encoded chunks into a file. While one piece is being written, the next one is read or computed. */
import { ahead } from '../ahead.js';
import { stretches } from '../stretches.js';
import { PIECES_IN_USE, type TensorData } from '../tensor.js';
import type { Sink } from './atomic.js';
import { chunkLength, readChunk } from './encode.js';
import { FileData } from './payload.js';
import type { Chunk } from './rope.js';
import { FileSource, type Source } from './source.js';

/** Bytes of a piece: worth a call, and a few of them fit a processor's cache. */
const PIECE = 1 << 20;
/** Reads under way, so that a disk that is read is not idle while bytes are handed over. */
const READS = 2;
/** Writes under way: the disk's thread has the next one at hand when it is done with one. One more piece is held here. */
const WRITES = PIECES_IN_USE - 1;
/** Bytes of these writes: a piece of more than this (a weight that is folded whole) is under way alone. */
const WRITES_BYTES = 8 << 20;
/** When a computed payload has no more bytes than this to come, all of it is under way, and the next one is begun. */
const LAST_BYTES = 8 << 20;

/**
 * Writes chunks in order; at the end all bytes are with the sink.
 * @param progress called with the bytes of every piece that was handed over
 */
export async function pump(
  chunks: readonly Chunk[],
  sink: Sink,
  progress: (bytes: number) => void = () => {},
): Promise<void> {
  const computed = chunks.flatMap((chunk) => (isComputed(chunk) ? [chunk.data] : []));
  const buffers = Array.from({ length: WRITES + READS }, () => new Uint8Array(PIECE));
  const writing: { readonly written: Promise<void>; readonly bytes: number }[] = [];
  let underWay = 0;
  let current = begin(computed.shift());
  let next: Ahead | undefined;
  const put = async (bytes: Uint8Array): Promise<void> => {
    while (writing.length === WRITES || underWay + bytes.length > WRITES_BYTES) {
      const first = writing.shift();
      if (first === undefined) break;
      await first.written;
      underWay -= first.bytes;
    }
    const written = sink.write(bytes);
    // Awaited in order; one that fails behind another that failed says nothing new.
    written.catch(() => {});
    writing.push({ written, bytes: bytes.length });
    underWay += bytes.length;
    progress(bytes.length);
  };
  try {
    for (const chunk of chunks) {
      if (isComputed(chunk)) {
        let left = chunk.data.byteLength;
        for (let piece = await current?.take(); piece !== undefined; piece = await current?.take()) {
          left -= piece.length;
          await put(piece);
          if (left <= LAST_BYTES) next ??= begin(computed.shift());
        }
        current = next ?? begin(computed.shift());
        next = undefined;
        continue;
      }
      const file = fileRange(chunk);
      if (file === undefined) {
        for (const { at, size } of stretches(chunkLength(chunk), PIECE))
          await put(readChunk(chunk, at, size));
        continue;
      }
      const { source, start, length } = file;
      for await (const bytes of ahead(stretches(length, PIECE), READS, async ({ at, size }) => {
        // The others may be on their way to the disk.
        const buffer = buffers.shift() as Uint8Array<ArrayBuffer>;
        buffers.push(buffer);
        const bytes = buffer.subarray(0, size);
        await source.readAside(bytes, start + at);
        return bytes;
      }))
        await put(bytes);
    }
    await Promise.all(writing.map(({ written }) => written));
  } catch (cause) {
    await Promise.allSettled([...writing.map(({ written }) => written), current?.stop(), next?.stop()]);
    throw cause;
  }
}

function isComputed(chunk: Chunk): chunk is Extract<Chunk, { kind: 'data' }> {
  return chunk.kind === 'data' && chunk.data.stream !== undefined;
}

function begin(data: TensorData | undefined): Ahead | undefined {
  return data?.stream === undefined ? undefined : new Ahead(data.stream());
}

/** Pieces of a computed payload, one more being made than were taken. */
class Ahead {
  readonly #pieces: AsyncIterator<Uint8Array>;
  #next: Promise<IteratorResult<Uint8Array, unknown>>;

  constructor(pieces: AsyncIterable<Uint8Array>) {
    this.#pieces = pieces[Symbol.asyncIterator]();
    this.#next = this.#begin();
  }

  /** The next piece; undefined after the last. Errors of the computation come with the piece they belong to. */
  async take(): Promise<Uint8Array | undefined> {
    const next = await this.#next;
    if (next.done === true) return undefined;
    this.#next = this.#begin();
    return next.value;
  }

  async stop(): Promise<void> {
    await this.#pieces.return?.();
  }

  #begin(): Promise<IteratorResult<Uint8Array, unknown>> {
    const next = this.#pieces.next();
    // A piece that is never taken fails silently.
    next.catch(() => {});
    return next;
  }
}

interface FileRange {
  readonly source: FileSource;
  readonly start: number;
  readonly length: number;
}

function fileRange(chunk: Chunk): FileRange | undefined {
  const length = chunkLength(chunk);
  const range = (source: Source, start: number) =>
    source instanceof FileSource ? { source, start, length } : undefined;
  if (chunk.kind === 'span') return range(chunk.source, chunk.start);
  if (chunk.kind === 'data' && chunk.data instanceof FileData)
    return range(chunk.data.source, chunk.data.offset);
  return undefined;
}
