/**
 * An edit is the only way a pass changes a graph: built detached, applied in one step, logged.
 * Order of application: redirect uses, attach new nodes, remove old ones. New nodes may therefore read the value that
 * was redirected (`y' = y + f(y)`) without being rewired themselves.
 */
import type { Graph, Node, Use, Value } from '../src/graph.js';
import { redirectUses, walkGraphs } from '../src/graph.js';

/** Where new nodes go: just before a node, just after one, or at the end of the graph. */
export type Anchor = { readonly before: Node } | { readonly after: Node } | 'end';

export interface Redirect {
  readonly from: Value;
  readonly to: Value;
  /** Which uses move; default: all. */
  readonly only?: (use: Use) => boolean;
}

export interface Edit {
  /** One line for the log, e.g. `lora at encoder.layer.0.attention.self.query`. */
  readonly label: string;
  readonly graph: Graph;
  readonly add?: { readonly nodes: readonly Node[]; readonly at: Anchor };
  readonly addInitializers?: readonly Value[];
  readonly addInputs?: readonly Value[];
  readonly redirect?: readonly Redirect[];
  readonly remove?: readonly Node[];
  /** Initializers that lost their last use and go away. */
  readonly removeInitializers?: readonly Value[];
}

export function applyEdit(edit: Edit): void {
  const { graph } = edit;
  for (const { from, to, only } of edit.redirect ?? []) redirectUses(from, to, only);
  for (const value of edit.addInputs ?? []) graph.addInput(value);
  for (const value of edit.addInitializers ?? []) graph.addInitializer(value);
  if (edit.add !== undefined) attach(graph, edit.add.nodes, edit.add.at);
  // Later nodes read earlier ones, so removal runs backwards.
  for (const node of [...(edit.remove ?? [])].reverse()) {
    graph.remove(node);
    releaseBodies(node);
  }
  for (const value of edit.removeInitializers ?? []) graph.initializers.delete(value);
}

function attach(graph: Graph, nodes: readonly Node[], at: Anchor): void {
  if (at === 'end') {
    for (const node of nodes) graph.append(node);
  } else if ('before' in at) {
    for (const node of nodes) graph.insertBefore(at.before, node);
  } else {
    let last = at.after;
    for (const node of nodes) last = graph.insertAfter(last, node);
  }
}

/** Values that the bodies of a control-flow node capture lose those uses: for a node that is not coming back. */
export function releaseBodies(node: Node): void {
  for (const body of node.subgraphs) {
    for (const graph of [...walkGraphs(body)].reverse()) {
      graph.clearOutputs();
      for (const inner of graph.nodesReversed()) graph.remove(inner);
    }
  }
}
