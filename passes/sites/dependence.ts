/** Which values depend on what the model is fed: a product of two constants is no linear layer. */
import type { Node, Value } from '../../src/graph.js';

/**
 * A test whether a value depends on an input of any graph, with its answers remembered. Values of nested graphs are
 * followed into the graphs around them, and a control-flow node counts as fed.
 */
export function dependence(): (value: Value) => boolean {
  const known = new Map<Node, boolean>();
  const fed = (value: Value): boolean => {
    if (value.producer === undefined) return value.tensor === undefined;
    // Depth first without recursion: chains of nodes are as long as models are deep.
    const stack: Node[] = [value.producer];
    while (stack.length > 0) {
      const node = stack.at(-1) as Node;
      if (known.has(node)) {
        stack.pop();
        continue;
      }
      if (node.subgraphs.length > 0) {
        known.set(node, true);
        continue;
      }
      const inputs = node.inputs.filter((input) => input !== null);
      const producers = inputs.map(({ producer }) => producer).filter((producer) => producer !== undefined);
      const direct = inputs.some((input) => input.producer === undefined && input.tensor === undefined);
      if (direct || producers.some((producer) => known.get(producer) === true)) known.set(node, true);
      else {
        const open = producers.filter((producer) => !known.has(producer));
        if (open.length === 0) known.set(node, false);
        else stack.push(...open);
      }
    }
    return known.get(value.producer) ?? false;
  };
  return fed;
}
