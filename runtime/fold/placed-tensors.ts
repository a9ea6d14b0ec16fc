/** Every tensor of a model with a description of its place, in an order that depends on the structure alone. */
import { payloadOf } from '../../passes/sites/index.js';
import { tensorsOf } from '../../src/attribute.js';
import { type Graph, type Value, walkGraphs } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import type { Tensor } from '../../src/tensor.js';

export interface PlacedTensor {
  /** For messages, e.g. `tensor 'encoder.weight'` or `attribute 'value' of Constant 'c'`. */
  readonly place: string;
  readonly tensor: Tensor;
  /** The value whose numbers these are: an initializer, or the output of a Constant node. */
  readonly of?: Value;
}

/** Initializers and attribute tensors of the main graph, of graphs nested in it, and of local functions. */
export function* placedTensors(model: Model): Generator<PlacedTensor, undefined> {
  yield* tensorsOfGraph(model.graph);
  for (const { domain, name, graph, attributeDefaults } of model.functions) {
    for (const [key, attribute] of attributeDefaults ?? [])
      for (const tensor of tensorsOf(attribute))
        yield { place: `default '${key}' of function '${domain}.${name}'`, tensor };
    yield* tensorsOfGraph(graph);
  }
  return undefined;
}

function* tensorsOfGraph(root: Graph): Generator<PlacedTensor> {
  for (const graph of walkGraphs(root)) {
    for (const value of graph.initializers)
      if (value.tensor !== undefined)
        yield { place: `tensor '${value.label}'`, tensor: value.tensor, of: value };
    for (const node of graph.nodes()) {
      const output = node.outputs[0];
      const constant = output !== null && output !== undefined ? payloadOf(output) : undefined;
      for (const [key, attribute] of node.attributes)
        for (const tensor of tensorsOf(attribute))
          yield {
            place: `attribute '${key}' of ${node.label}`,
            tensor,
            ...(tensor === constant && output ? { of: output } : {}),
          };
    }
  }
}
