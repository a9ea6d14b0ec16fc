/**
 * Constant tensors as handles. A pass sees dtype and shape; payloads are read only by `src/onnx` and `runtime`,
 * but for small inline payloads (shapes, axes, scalars) that constant propagation needs.
 */
import { stretches } from './stretches.js';
import { byteSize, countOf, type DType } from './types.js';

/** Payloads up to this many bytes are kept inline when a model is decoded, so that passes can read them. */
export const INLINE_LIMIT = 1024;

/** Bytes of a tensor in ONNX `raw_data` layout (little-endian, packed), wherever they live. */
export interface TensorData {
  readonly byteLength: number;
  /** The bytes when they are small or already in memory; undefined when reading them costs I/O or work. */
  readonly inline?: Uint8Array | undefined;
  /** Reads `length` bytes from `offset`. Called by `src/onnx` and `runtime` only. */
  read(offset: number, length: number): Uint8Array;
  /**
   * For payloads that must be computed (a folded weight): all bytes in order, piece by piece, so that few pieces
   * are in memory; a piece stays as it is while the next `PIECES_IN_USE` of them are made. `read` of such data throws.
   * Use `payloadChunks`, which serves both kinds.
   */
  stream?(): AsyncIterable<Uint8Array>;
}

/** Pieces of a stream that its reader may still be writing when it asks for one more, the one it was given last among them. */
export const PIECES_IN_USE = 4;

/** A constant tensor. `strings` replaces `data` for dtype `string`. */
export interface Tensor {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly data: TensorData;
  readonly strings?: readonly Uint8Array[];
}

/** Bytes held in memory. */
export class BytesData implements TensorData {
  readonly inline: Uint8Array;
  constructor(bytes: Uint8Array) {
    this.inline = bytes;
  }
  get byteLength(): number {
    return this.inline.byteLength;
  }
  read(offset: number, length: number): Uint8Array {
    return this.inline.subarray(offset, offset + length);
  }
}

export function tensorOfBytes(dtype: DType, dims: readonly number[], bytes: Uint8Array): Tensor {
  return { dtype, dims, data: new BytesData(bytes) };
}

export function elementsOf(tensor: Tensor): number {
  return countOf(tensor.dims);
}

/** Size of the payload that dtype and dims call for. */
export function expectedBytes(tensor: Pick<Tensor, 'dtype' | 'dims'>): number {
  return byteSize(tensor.dtype, countOf(tensor.dims));
}

const CHUNK = 1 << 20;

/** All bytes of a payload in order, in pieces, wherever they live or however they are computed. */
export async function* payloadChunks(data: TensorData): AsyncGenerator<Uint8Array> {
  if (data.inline !== undefined) yield data.inline;
  else if (data.stream !== undefined) yield* data.stream();
  else for (const { at, size } of stretches(data.byteLength, CHUNK)) yield data.read(at, size);
}
