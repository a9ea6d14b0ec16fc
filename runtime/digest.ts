/** SHA-256 of files and of the weights of a model, streamed. */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { payloadOf } from '../passes/sites/index.js';
import { fail } from '../src/errors.js';
import { type Graph, type Value, walkGraphs } from '../src/graph.js';
import type { Model } from '../src/model.js';
import { reason } from '../src/onnx/source.js';
import { payloadChunks, type Tensor } from '../src/tensor.js';

/** `sha256:<hex>` of the bytes of a file. */
export async function digestFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }))
      hash.update(chunk as Buffer);
  } catch (cause) {
    fail('E_IO', { message: `Cannot read the file: ${reason(cause)}`, where: path, cause });
  }
  return finish(hash);
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
export async function digestWeights(model: Model): Promise<string> {
  const hash = createHash('sha256');
  for (const graph of walkGraphs(model.graph)) {
    const named = weightsOf(graph).map((value) => ({ name: value.label, tensor: payloadOf(value) }));
    named.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
    for (const { name, tensor } of named) if (tensor !== undefined) await update(hash, name, tensor);
  }
  return finish(hash);
}

/** Initializers, and outputs of Constant nodes that hold more than a number. */
function weightsOf(graph: Graph): Value[] {
  const constants = [...graph.nodes()].flatMap(({ outputs: [output] }) =>
    output !== undefined && output !== null && (payloadOf(output)?.dims.length ?? 0) > 0 ? [output] : [],
  );
  return [...graph.initializers, ...constants];
}

async function update(hash: Hash, name: string, tensor: Tensor): Promise<void> {
  hash.update(`${JSON.stringify(name)} ${tensor.dtype} ${tensor.dims.join(',')}\n`);
  if (tensor.strings !== undefined) {
    for (const text of tensor.strings) hash.update(`${text.byteLength}:`).update(text);
    return;
  }
  for await (const chunk of payloadChunks(tensor.data)) hash.update(chunk);
}

function finish(hash: Hash): string {
  return `sha256:${hash.digest('hex')}`;
}
