/**
 * The proof that a fold changed nothing but numbers: the merged file, read back from disk, prints the same graph as the
 * base (same nodes, order, names, attributes, types), and every tensor outside the plan holds the same bytes.
 */

import { payloadOf } from '../../passes/sites/index.js';
import { type Value, walkGraphs } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import type { Tensor } from '../../src/tensor.js';
import { printModel } from '../../src/text/index.js';

export interface FoldProof {
  readonly holds: boolean;
  readonly nodes: number;
  /** Tensors compared byte by byte and found equal. */
  readonly untouched: number;
  /** First differences in the text, or names of tensors that changed without being planned; empty when it holds. */
  readonly differences: readonly string[];
}

const CHUNK = 1 << 20;

/**
 * @param base the base model; shared weights that the fold separated already have their copies
 * @param merged what was written, decoded again
 * @param planned names of the tensors the fold was to change
 */
export function proveFold(base: Model, merged: Model, planned: ReadonlySet<string>): FoldProof {
  const differences = textDifferences(structureOf(base), structureOf(merged));
  let untouched = 0;
  const theirs = weightsByName(merged);
  for (const [name, tensor] of weightsByName(base)) {
    if (planned.has(name)) continue;
    const other = theirs.get(name);
    if (other !== undefined && sameBytes(tensor, other)) untouched++;
    else differences.push(`tensor '${name}' changed, which was not planned`);
  }
  let nodes = 0;
  for (const graph of walkGraphs(merged.graph)) nodes += graph.nodeCount;
  return { holds: differences.length === 0, nodes, untouched, differences };
}

/** Everything but payloads and metadata. */
export function structureOf(model: Model): string {
  return printModel(model, { structureOnly: true });
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

/** Every tensor that the structure text leaves out: initializers, and the numbers of Constant nodes. */
function weightsByName(model: Model): Map<string, Tensor> {
  const weights = new Map<string, Tensor>();
  const add = (value: Value) => {
    const tensor = payloadOf(value);
    if (value.name !== undefined && tensor !== undefined) weights.set(value.name, tensor);
  };
  for (const graph of walkGraphs(model.graph)) {
    graph.initializers.forEach(add);
    for (const node of graph.nodes()) if (node.op === 'Constant' && node.outputs[0]) add(node.outputs[0]);
  }
  return weights;
}

function sameBytes(a: Tensor, b: Tensor): boolean {
  if (a.data.byteLength !== b.data.byteLength) return false;
  for (let offset = 0; offset < a.data.byteLength; offset += CHUNK) {
    const length = Math.min(CHUNK, a.data.byteLength - offset);
    if (Buffer.compare(a.data.read(offset, length), b.data.read(offset, length)) !== 0) return false;
  }
  return true;
}
