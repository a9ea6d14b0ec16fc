/** Dead code: what no output needs. */
import { type Graph, type Node, walkGraphs } from '../../src/graph.js';

/** Removes nodes, initializers and inputs that no output of the graph depends on. */
export function pruneGraph(graph: Graph): void {
  for (const node of graph.nodesReversed()) {
    if (node.outputs.some((output) => output !== null && output.uses.size > 0)) continue;
    releaseBodies(node);
    graph.remove(node);
  }
  for (const value of [...graph.initializers]) if (value.uses.size === 0) graph.initializers.delete(value);
  const used = graph.inputs.filter((input) => input.uses.size > 0);
  graph.inputs.splice(0, graph.inputs.length, ...used);
}

/** Values that the bodies of a dead control-flow node capture lose those uses. */
function releaseBodies(node: Node): void {
  for (const body of node.subgraphs) {
    for (const graph of [...walkGraphs(body)].reverse()) {
      graph.clearOutputs();
      for (const inner of graph.nodesReversed()) graph.remove(inner);
    }
  }
}
