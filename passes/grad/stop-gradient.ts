/** A barrier for gradients, kept in the graph as an Identity with a mark, so that it survives a round trip to a file. */
import type { Node, Value } from '../../src/graph.js';
import type { Builder } from '../../src/ops/builder.js';

const MARK = 'peft_compile.stop_gradient';

/** `value` as a constant to differentiation: nothing flows from the result back into it. */
export function stopGradient(b: Builder, value: Value): Value {
  const result = b.op.Identity(value);
  result.producer?.metadata.set(MARK, 'true');
  return result;
}

/** Whether the node is such a barrier. */
export function stopsGradient(node: Node): boolean {
  return node.metadata.has(MARK);
}
