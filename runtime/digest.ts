/** SHA-256 of files and of the weights of a model, streamed. */
import { createHash, type Hash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { payloadOf } from '../passes/sites/index.js';
import { type Graph, type Value, walkGraphs } from '../src/graph.js';
import type { Model } from '../src/model.js';
import { FileData, readPayload } from '../src/onnx/index.js';
import { FileSource } from '../src/onnx/source.js';
import { stretches } from '../src/stretches.js';
import { payloadChunks, type Tensor, type TensorData } from '../src/tensor.js';

const utf8 = new TextEncoder();
/** Bytes read at once: they are still in the processor's cache when they are hashed. */
const PIECE = 256 * 1024;
/** After this many bytes signals and timers get their turn. */
const TURN = 64 << 20;

/** `sha256:<hex>` of the bytes of a file. Throws E_IO for one that cannot be read. */
export async function digestFile(path: string): Promise<string> {
  const source = new FileSource(path);
  try {
    return await digestParts([new FileData(source, 0, source.length)]);
  } finally {
    source.close();
  }
}

/** `sha256:<hex>` of bytes or text. */
export function digestBytes(bytes: Uint8Array | string): string {
  return finish(createHash('sha256').update(bytes));
}

/**
 * `sha256:<hex>` of all weights of a model, which are initializers and the tensors of Constant nodes: name, dtype, dims and payload of each, sorted by name within each
 * graph. Node order, external-data layout and metadata do not enter, so a model keeps its digest when it is only
 * stored differently.
 */
export function digestWeights(model: Model): Promise<string> {
  return digestParts(weightParts(model));
}

async function digestParts(parts: Iterable<Uint8Array | TensorData>): Promise<string> {
  const hash = createHash('sha256');
  const buffer = new Uint8Array(PIECE);
  let hashed = 0;
  for (const part of parts)
    for await (const bytes of piecesOf(part, buffer)) {
      hash.update(bytes);
      hashed += bytes.byteLength;
      if (hashed > TURN) {
        hashed = 0;
        await setImmediate();
      }
    }
  return finish(hash);
}

function piecesOf(
  part: Uint8Array | TensorData,
  buffer: Uint8Array,
): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  if (part instanceof Uint8Array) return [part];
  return part instanceof FileData ? piecesOfFile(part, buffer) : payloadChunks(part);
}

/** Each piece in the same buffer. */
function* piecesOfFile(data: FileData, buffer: Uint8Array): Generator<Uint8Array> {
  for (const { at, size } of stretches(data.byteLength, buffer.length))
    yield readPayload(buffer.subarray(0, size), data, at);
}

/** What `digestWeights` hashes, in order. */
export function* weightParts(model: Model): Generator<Uint8Array | TensorData> {
  for (const graph of walkGraphs(model.graph)) {
    const named = weightsOf(graph).map((value) => ({ name: value.label, tensor: payloadOf(value) }));
    named.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
    for (const { name, tensor } of named) if (tensor !== undefined) yield* partsOfTensor(name, tensor);
  }
}

/** Initializers, and outputs of Constant nodes that hold more than a number. */
function weightsOf(graph: Graph): Value[] {
  const constants = [...graph.nodes()].flatMap(({ outputs: [output] }) =>
    output !== undefined && output !== null && (payloadOf(output)?.dims.length ?? 0) > 0 ? [output] : [],
  );
  return [...graph.initializers, ...constants];
}

function* partsOfTensor(
  name: string,
  { dtype, dims, strings, data }: Tensor,
): Generator<Uint8Array | TensorData> {
  yield utf8.encode(`${JSON.stringify(name)} ${dtype} ${dims.join(',')}\n`);
  if (strings === undefined) yield data;
  else
    for (const text of strings) {
      yield utf8.encode(`${text.byteLength}:`);
      yield text;
    }
}

function finish(hash: Hash): string {
  return `sha256:${hash.digest('hex')}`;
}
