/** Drives the rules over a node or over a model in one pass, and merges what they say with what the file declares. */
import type { Graph, Node } from '../graph.js';
import type { Model } from '../model.js';
import { tensorType, type ValueType } from '../types.js';
import { Call, type Engine } from './call.js';
import { setContents } from './contents.js';
import { ruleOf } from './registry.js';

/** A declared type that contradicts the inferred one. */
export interface Diagnostic {
  readonly where: string;
  readonly message: string;
}

const DETACHED: Engine = { opset: () => undefined, enter: () => {}, freshDim: () => null };

/**
 * Types the outputs of one node from the types of its inputs. Rules follow the node's own form (attributes or inputs),
 * so most need no opset; pass the model where a local function or an old form decides.
 */
export function inferNode(node: Node, model?: Model): void {
  const engine = model === undefined ? DETACHED : { ...DETACHED, opset: (d: string) => model.opsets.get(d) };
  const call = new Call(node, engine);
  ruleOf(node.domain, node.op)?.(call);
  node.outputs.forEach((output, index) => {
    const type: ValueType | undefined = call.results[index];
    if (output === null) return;
    setContents(output, undefined);
    if (type !== undefined) output.type = type;
  });
}

/** Types every value of a model, subgraphs included. */
export function inferModel(model: Model): Diagnostic[] {
  const visit = (graph: Graph): void => {
    for (const value of graph.initializers)
      if (value.type === undefined && value.tensor !== undefined)
        value.type = tensorType(value.tensor.dtype, value.tensor.dims);
    for (const node of graph.nodes()) inferNode(node, model);
  };
  visit(model.graph);
  return [];
}
