/** Dead code: what no output needs. */
import type { Graph } from '../../src/graph.js';
import { releaseBodies } from '../edit.js';

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
