/** Inputs that a caller has to feed. */
import type { Graph, Value } from '../../src/graph.js';

/** Graph inputs without a default. */
export function requiredInputs(graph: Graph): Value[] {
  return graph.inputs.filter((input) => input.tensor === undefined && !graph.initializers.has(input));
}
