/** Finding things in graphs: by name, and along the edges. */
import { fail } from './errors.js';
import { type Graph, type Node, type Value, walkGraphs } from './graph.js';
import { didYouMean } from './nearest.js';
import { valuesRead } from './order.js';

/** All values that a graph defines: inputs, initializers, node outputs, each once; nested graphs are not entered. */
export function* definedValues(graph: Graph): IterableIterator<Value> {
  const seen = new Set<Value>();
  const fresh = (value: Value | null): value is Value => {
    if (value === null || seen.has(value)) return false;
    seen.add(value);
    return true;
  };
  for (const value of graph.inputs) if (fresh(value)) yield value;
  for (const value of graph.initializers) if (fresh(value)) yield value;
  for (const node of graph.nodes()) for (const value of node.outputs) if (fresh(value)) yield value;
}

/**
 * The node with this name, in the graph or a graph nested in it; the first one where a file has several.
 * Errors: `E_NO_MATCH` with the nearest names.
 */
export function findNode(graph: Graph, name: string): Node {
  const names: string[] = [];
  for (const g of walkGraphs(graph))
    for (const node of g.nodes()) {
      if (node.name === name) return node;
      if (node.name !== undefined) names.push(node.name);
    }
  return fail('E_NO_MATCH', {
    message: `There is no node '${name}'`,
    where: graph.name,
    remedy: didYouMean(name, names),
  });
}

/**
 * The value with this name: a public output of the graph, else a pinned value of it or of a graph nested in it.
 * Errors: `E_NO_MATCH` with the nearest names.
 */
export function findValue(graph: Graph, name: string): Value {
  for (const output of graph.outputs) if (output.name === name) return output.value;
  const names = graph.outputs.flatMap((output) => output.name ?? []);
  for (const g of walkGraphs(graph))
    for (const value of definedValues(g)) {
      if (value.name === name) return value;
      if (value.name !== undefined) names.push(value.name);
    }
  return fail('E_NO_MATCH', {
    message: `There is no value '${name}'`,
    where: graph.name,
    remedy: didYouMean(name, names),
  });
}

/**
 * Nodes of one sorted graph that the values depend on, through bodies of control flow too, in graph order.
 * Time is linear in the size of the graph.
 */
export function nodesBefore(graph: Graph, values: Iterable<Value>): Node[] {
  const needed = new Set<Value>(values);
  const found: Node[] = [];
  // Against the order of execution every reader is seen ahead of what it reads.
  for (const node of graph.nodesReversed()) {
    if (!node.outputs.some((output) => output !== null && needed.has(output))) continue;
    for (const value of valuesRead(node)) needed.add(value);
    found.push(node);
  }
  return found.reverse();
}

/** Nodes of one sorted graph that depend on the values, through other nodes or bodies too; in graph order. */
export function nodesAfter(graph: Graph, values: Iterable<Value>): Node[] {
  const reached = new Set<Value>(values);
  const found: Node[] = [];
  for (const node of graph.nodes()) {
    let reads = false;
    for (const value of valuesRead(node)) reads ||= reached.has(value);
    if (!reads) continue;
    for (const output of node.outputs) if (output !== null) reached.add(output);
    found.push(node);
  }
  return found;
}
