/**
 * The order in which ONNX Runtime executes a graph: depth first from the nodes that nothing follows, the last of them
 * first, and from every node to its producers, the last of them first (`Graph::ReverseDFSFrom` under
 * `ExecutionOrder::DEFAULT`). Its graph optimizers renumber what they fuse, so the order is a close estimate.
 */
import type { Graph, Node } from '../../src/graph.js';
import { dependencies } from '../../src/order.js';

/** All nodes of the main graph, each after what it depends on. Linear in nodes and edges, up to sorting. */
export function executionOrder(graph: Graph): Node[] {
  const index = new Map<Node, number>();
  for (const node of graph.nodes()) index.set(node, index.size);
  const producers = new Map<Node, Node[]>();
  const followed = new Set<Node>();
  for (const node of index.keys()) {
    const before = [...dependencies(node)].filter((other) => index.has(other));
    before.sort((a, b) => at(index, a) - at(index, b));
    for (const other of before) followed.add(other);
    producers.set(node, before);
  }
  const order: Node[] = [];
  const seen = new Set<Node>();
  const stack: { node: Node; leave: boolean }[] = [];
  for (const node of index.keys()) if (!followed.has(node)) stack.push({ node, leave: false });
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    const { node, leave } = top;
    if (leave) {
      order.push(node);
      continue;
    }
    if (seen.has(node)) continue;
    seen.add(node);
    stack.push({ node, leave: true });
    for (const other of producers.get(node) ?? [])
      if (!seen.has(other)) stack.push({ node: other, leave: false });
  }
  return order;
}

function at(index: ReadonlyMap<Node, number>, node: Node): number {
  return index.get(node) ?? 0;
}
