/** Names that passes pin on new values: free in the whole model. */
import type { Value } from '../src/graph.js';
import { walkGraphs } from '../src/graph.js';
import type { Model } from '../src/model.js';

/** All pinned value and output names of a model, nested graphs included. */
export function valueNames(model: Model): Set<string> {
  const names = new Set<string>();
  const add = (value: Value | null) => {
    if (value?.name !== undefined) names.add(value.name);
  };
  for (const graph of walkGraphs(model.graph)) {
    graph.inputs.forEach(add);
    graph.initializers.forEach(add);
    for (const output of graph.outputs) if (output.name !== undefined) names.add(output.name);
    for (const node of graph.nodes()) node.outputs.forEach(add);
  }
  return names;
}

/** `wanted`, or `wanted_1`, …: the first that is not taken, which it then is. */
export function claimName(wanted: string, taken: Set<string>): string {
  let name = wanted;
  for (let i = 1; taken.has(name); i++) name = `${wanted}_${i}`;
  taken.add(name);
  return name;
}
