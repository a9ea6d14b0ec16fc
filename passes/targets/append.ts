/** Moves what a builder makes into a graph, as often as wanted. */
import type { Model } from '../../src/model.js';
import type { Builder } from '../../src/ops/builder.js';
import { applyEdit } from '../edit.js';

/** Returns a function that appends the nodes and constants that `b` made since the last call. */
export function appender(model: Model, b: Builder, label: string): () => void {
  let nodes = 0;
  let initializers = 0;
  return () => {
    applyEdit({
      label,
      graph: model.graph,
      add: { nodes: b.nodes.slice(nodes), at: 'end' },
      addInitializers: b.initializers.slice(initializers),
    });
    nodes = b.nodes.length;
    initializers = b.initializers.length;
  };
}
