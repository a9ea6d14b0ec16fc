/** SHA-256 of files and of the weights of a model, streamed. */
import { createHash, type Hash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { payloadOf } from '../passes/sites/index.js';
import { type Graph, type Value, walkGraphs } from '../src/graph.js';
import type { Model } from '../src/model.js';
import { FileData, readPayload } from '../src/onnx/index.js';
import { FileSource } from '../src/onnx/source.js';
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
  for (const part of parts) {
    hashed += part.byteLength;
    if (hashed > TURN) {
      hashed = 0;
      await setImmediate();
    }
    if (part instanceof Uint8Array) hash.update(part);
    else if (part instanceof FileData) updateFromFile(hash, part, buffer);
    else for await (const bytes of payloadChunks(part)) hash.update(bytes);
  }
  return finish(hash);
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

function updateFromFile(hash: Hash, data: FileData, buffer: Uint8Array): void {
  for (let at = 0; at < data.byteLength; at += PIECE)
    hash.update(readPayload(buffer.subarray(0, Math.min(PIECE, data.byteLength - at)), data, at));
}

function finish(hash: Hash): string {
  return `sha256:${hash.digest('hex')}`;
}
