/** Types after a rewrite that changed shapes: what a file declared of the values behind it no longer holds. */
import { sameDim } from '../dims.js';
import type { Node, Value } from '../graph.js';
import type { Model } from '../model.js';
import { dependencies, topologicalOrder } from '../order.js';
import { isFloat, tensorType, type ValueType } from '../types.js';
import { inferNode } from './engine.js';

/**
 * Infers the types of `values` again, and of what is computed from them in their graph as far as types change; what was
 * declared of those is forgotten. Values must be outputs of attached nodes or be read by some.
 */
export function retype(model: Model, values: readonly Value[]): void {
  const changed = new Set<Value>(values);
  const graph = values
    .flatMap(({ producer, users }) => [producer, ...users])
    .find((node) => node !== undefined)?.graph;
  if (graph === undefined) return;
  const made = new Set(values.map(({ producer }) => producer));
  for (const node of topologicalOrder(graph)) {
    const affected =
      made.has(node) ||
      node.inputs.some((input) => input !== null && changed.has(input)) ||
      (node.subgraphs.length > 0 &&
        [...dependencies(node)].some((one) => one.outputs.some((o) => o !== null && changed.has(o))));
    if (affected) for (const value of inferred(model, node)) changed.add(value);
  }
}

/** Types the outputs of a node anew; returns those of another type than before. Numbers may hold shapes, and count. */
function inferred(model: Model, node: Node): Value[] {
  const outputs = node.outputs.filter((output) => output !== null);
  const before = outputs.map(({ type }) => type);
  for (const output of outputs) output.type = undefined;
  inferNode(node, model);
  for (const [i, output] of outputs.entries()) output.type ??= unsized(before[i]);
  return outputs.filter((output, i) => !sameType(output.type, before[i]) || holdsNumbers(output.type));
}

/** All that is still known of an output that no rule types. */
function unsized(type: ValueType | undefined): ValueType | undefined {
  return type?.kind === 'tensor' ? tensorType(type.dtype, type.shape?.map(() => null) ?? null) : type;
}

function holdsNumbers(type: ValueType | undefined): boolean {
  return type?.kind !== 'tensor' || !isFloat(type.dtype);
}

function sameType(a: ValueType | undefined, b: ValueType | undefined): boolean {
  if (a?.kind !== 'tensor' || b?.kind !== 'tensor' || a.dtype !== b.dtype) return false;
  const { shape } = b;
  if (a.shape === null || shape === null || a.shape.length !== shape.length) return false;
  return a.shape.every((dim, axis) => dim !== null && sameDim(dim, shape[axis] ?? null));
}
