/** Edits that replace a node, with whatever only it needed. */
import type { Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import type { Edit } from '../edit.js';

/**
 * An edit that computes `root`'s outputs by what `build` makes instead. Nodes that fed nothing but `root` go too.
 * `build` returns replacements by output position; null for outputs that nobody reads.
 */
export function replaceNode(
  model: Model,
  root: Node,
  label: string,
  build: (b: Builder) => readonly (Value | null)[],
): Edit {
  const graph = root.graph ?? model.graph;
  const b = new Builder(model, { provenance: label });
  const outputs = build(b);
  const redirect = root.outputs.flatMap((from, i) => {
    const to = outputs[i];
    return from === null || to === null || to === undefined ? [] : [{ from, to }];
  });
  const kept = new Set<Value>(b.nodes.flatMap((node) => node.inputs.filter((input) => input !== null)));
  for (const { to } of redirect) kept.add(to);
  return {
    label: `${label}: ${root.label}`,
    graph,
    redirect,
    add: { nodes: b.nodes, at: { before: root } },
    addInitializers: b.initializers,
    remove: unusedWith(root, kept),
  };
}

/** `root` and the nodes before it that only lead to it, in graph order. */
export function unusedWith(root: Node, kept: ReadonlySet<Value> = new Set()): Node[] {
  const removed = new Set<Node>([root]);
  const order = [root];
  for (let i = 0; i < order.length; i++) {
    for (const input of order[i]?.inputs ?? []) {
      const node = input?.producer;
      if (node === undefined || node.graph !== root.graph || removed.has(node)) continue;
      const needed = node.outputs.some(
        (output) =>
          output !== null &&
          (kept.has(output) ||
            [...output.uses].some((use) => use.kind === 'output' || !removed.has(use.node))),
      );
      if (needed) continue;
      removed.add(node);
      order.push(node);
    }
  }
  // A node is looked at again with each of its users, so it enters after the last of them.
  return order.reverse();
}
