/** Order of execution: a graph is a list of nodes, and every node stands behind the producers of what it reads. */
import { fail } from './errors.js';
import { type Graph, type Node, type Value, walkGraphs } from './graph.js';

/**
 * Values a node reads, captures of its subgraphs included; each may come more than once. Values defined inside the
 * subgraphs come too: callers look only at producers in the node's own graph.
 */
export function* valuesRead(node: Node): IterableIterator<Value> {
  for (const input of node.inputs) if (input !== null) yield input;
  for (const body of node.subgraphs) {
    for (const graph of walkGraphs(body)) {
      for (const inner of graph.nodes()) for (const input of inner.inputs) if (input !== null) yield input;
      for (const output of graph.outputs) yield output.value;
    }
  }
}

/** Nodes of the same graph that must run before `node`, each once, in the order in which they are read. */
export function dependencies(node: Node): Set<Node> {
  const nodes = new Set<Node>();
  for (const value of valuesRead(node)) {
    const producer = value.producer;
    if (producer !== undefined && producer.graph === node.graph && node.graph !== undefined)
      nodes.add(producer);
  }
  return nodes;
}

/**
 * A topological order of the nodes of one graph that equals the present order where that is already one: a node moves
 * only ahead of its first reader. Captures of subgraphs count as reads of the node that holds the subgraph.
 * Errors: `E_INVALID_GRAPH` with the nodes on the cycle, if there is one.
 */
export function topologicalOrder(graph: Graph): Node[] {
  const order: Node[] = [];
  const state = new Map<Node, 'open' | 'done'>();
  for (const root of graph.nodes()) {
    if (state.has(root)) continue;
    const stack: { node: Node; pending: Iterator<Node> }[] = [];
    const open = (node: Node): void => {
      state.set(node, 'open');
      stack.push({ node, pending: dependencies(node).values() });
    };
    open(root);
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const next = top.pending.next();
      if (next.done === true) {
        state.set(top.node, 'done');
        order.push(top.node);
        stack.pop();
        continue;
      }
      const dependency = next.value;
      if (state.get(dependency) === 'open')
        failOnCycle(
          stack.map((frame) => frame.node),
          dependency,
        );
      if (!state.has(dependency)) open(dependency);
    }
  }
  return order;
}

/** Sorts a graph and the graphs nested in it. Returns whether anything moved. Errors as `topologicalOrder`. */
export function sortTopologically(graph: Graph): boolean {
  let moved = false;
  for (const g of walkGraphs(graph)) {
    if (isSorted(g)) continue;
    g.reorder(topologicalOrder(g));
    moved = true;
  }
  return moved;
}

function failOnCycle(path: readonly Node[], start: Node): never {
  const cycle = path.slice(path.indexOf(start));
  const shown = cycle.slice(0, 8).map((node) => node.label);
  if (cycle.length > shown.length) shown.push(`… ${cycle.length - shown.length} more`);
  return fail('E_INVALID_GRAPH', {
    message: `Nodes depend on each other in a cycle: ${shown.join(' needs ')} needs ${start.label}`,
    where: start.label,
    remedy:
      'Build the new nodes detached and redirect the old value in the same edit, so that they keep reading it',
  });
}

/** Whether every node of this one graph stands behind the producers of what it reads. */
export function isSorted(graph: Graph): boolean {
  const done = new Set<Node>();
  for (const node of graph.nodes()) {
    for (const value of valuesRead(node)) {
      const { producer } = value;
      if (producer !== undefined && producer.graph === graph && !done.has(producer)) return false;
    }
    done.add(node);
  }
  return true;
}
