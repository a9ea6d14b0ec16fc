/** Weights that a pass put others in place of. */
import { type Value, walkGraphs } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import type { Edit } from '../edit.js';

/** Initializers that something reads. */
export function usedInitializers(model: Model): Set<Value> {
  const used = new Set<Value>();
  for (const graph of walkGraphs(model.graph))
    for (const value of graph.initializers) if (value.uses.size > 0) used.add(value);
  return used;
}

/** Drops those of `before` that nothing reads any more; inputs keep their defaults. */
export function* dropUnused(model: Model, before: ReadonlySet<Value>): Iterable<Edit> {
  for (const graph of walkGraphs(model.graph)) {
    const unused = [...graph.initializers].filter(
      (value) => before.has(value) && value.uses.size === 0 && !graph.inputs.includes(value),
    );
    if (unused.length > 0)
      yield { label: `drop ${unused.length} replaced weights`, graph, removeInitializers: unused };
  }
}
