/**
 * The proof that a fold changed nothing but numbers: the merged file, read back from disk, prints the same graph as the
 * base (same nodes, order, names, attributes, types, docs and metadata of nodes), and every tensor outside the plan
 * holds the same bytes, wherever it is: initializers of all graphs, attributes of all nodes, bodies of functions.
 */
import { type Value, walkGraphs } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { FileData, readPayload } from '../../src/onnx/index.js';
import { FileSource } from '../../src/onnx/source.js';
import { stretches } from '../../src/stretches.js';
import type { Tensor, TensorData } from '../../src/tensor.js';
import { printModel } from '../../src/text/index.js';
import { type PlacedTensor, placedTensors } from './placed-tensors.js';

export interface FoldProof {
  readonly holds: boolean;
  readonly nodes: number;
  /** Tensors compared byte by byte and found equal. */
  readonly untouched: number;
  /** First differences in the text, or tensors that changed without being planned; empty when it holds. */
  readonly differences: readonly string[];
}

/** Bytes compared at once: two of them fit a processor's cache. */
const CHUNK = 256 * 1024;

/**
 * @param base the base model; shared weights that the fold separated already have their copies
 * @param merged what was written, decoded again
 * @param planned values of `base` whose numbers the fold was to change: initializers, or outputs of Constant nodes
 */
export function proveFold(base: Model, merged: Model, planned: ReadonlySet<Value>): FoldProof {
  const names = new Set([...planned].map((value) => value.name ?? ''));
  const differences = textDifferences(structureOf(base, names), structureOf(merged, names));
  const buffers: Buffers = [new Uint8Array(CHUNK), new Uint8Array(CHUNK)];
  let untouched = 0;
  // Equal texts have their tensors at the same places, in the same order.
  const theirs = placedTensors(merged);
  for (const { place, tensor, of } of placedTensors(base)) {
    const other: PlacedTensor | undefined = theirs.next().value;
    if (of !== undefined && planned.has(of)) continue;
    if (other?.place === place && sameContents(tensor, other.tensor, buffers)) untouched++;
    else differences.push(`${place} changed, which was not planned`);
  }
  let nodes = 0;
  for (const graph of walkGraphs(merged.graph)) nodes += graph.nodeCount;
  return { holds: differences.length === 0, nodes, untouched, differences };
}

type Buffers = readonly [Uint8Array, Uint8Array];

/** Everything but payloads and the texts that say who wrote the file; `changed` names integers that are payloads too. */
export function structureOf(model: Model, changed: ReadonlySet<string> = new Set()): string {
  const hidden = (value: Value): boolean => value.name !== undefined && changed.has(value.name);
  return printModel(model, { structureOnly: true, annotations: true, hidden });
}

/** Up to `limit` lines in which two texts differ. */
export function textDifferences(a: string, b: string, limit = 5): string[] {
  if (a === b) return [];
  const left = a.split('\n');
  const right = b.split('\n');
  const differences: string[] = [];
  for (let i = 0; i < Math.max(left.length, right.length) && differences.length < limit; i++)
    if (left[i] !== right[i])
      differences.push(`line ${i + 1}: base \`${left[i] ?? '(end)'}\`, merged \`${right[i] ?? '(end)'}\``);
  return differences;
}

function sameContents(a: Tensor, b: Tensor, buffers: Buffers): boolean {
  if (a.dtype !== b.dtype || a.dims.join() !== b.dims.join()) return false;
  if (a.strings !== undefined || b.strings !== undefined)
    return sameStrings(a.strings ?? [], b.strings ?? []);
  const length = a.data.byteLength;
  if (length !== b.data.byteLength) return false;
  if (isSameRange(a.data, b.data)) return true;
  for (const { at, size } of stretches(length, CHUNK)) {
    const ours = readPayload(buffers[0].subarray(0, size), a.data, at);
    const theirs = readPayload(buffers[1].subarray(0, size), b.data, at);
    if (Buffer.compare(ours, theirs) !== 0) return false;
  }
  return true;
}

/** Whether two payloads of one length are the same bytes of the same file: a merged model may go on reading the base's. */
function isSameRange(a: TensorData, b: TensorData): boolean {
  if (!(a instanceof FileData && b instanceof FileData)) return false;
  if (!(a.source instanceof FileSource && b.source instanceof FileSource)) return false;
  return a.offset === b.offset && a.source.identity === b.source.identity;
}

function sameStrings(a: readonly Uint8Array[], b: readonly Uint8Array[]): boolean {
  return a.length === b.length && a.every((text, i) => Buffer.compare(text, b[i] ?? new Uint8Array()) === 0);
}
