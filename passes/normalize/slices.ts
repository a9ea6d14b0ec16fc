/**
 * Slices that cut an axis into parts without gap or overlap become one Split: the gradient is then one Concat instead of
 * a padded copy per part and their sum. The halves of a rotary embedding are the case that matters.
 */
import type { Graph, Node, Value } from '../../src/graph.js';
import { intsOf } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { rankOf, sizeAt } from '../../src/value-type.js';
import { definePass } from '../pass.js';

interface Cut {
  readonly node: Node;
  readonly axis: number;
  readonly start: number;
  readonly end: number;
}

export const slicesPass = definePass({
  name: 'slices-to-split',
  summary: 'joins slices that partition an axis into one Split',
  *run(model: Model) {
    const done = new Set<Value>();
    for (const node of model.graph.nodes()) {
      const x = cutOf(node) === undefined ? undefined : node.input(0);
      if (x === undefined || done.has(x)) continue;
      done.add(x);
      const cuts = partition(x, model.graph);
      if (cuts === undefined) continue;
      const first = model.graph.firstNode ?? node;
      const b = new Builder(model, { provenance: 'slices-to-split' });
      const sizes = cuts.map(({ start, end }) => end - start);
      const parts = b.op.Split(x, b.ints(sizes), { axis: cuts[0]?.axis ?? 0 }, cuts.length);
      yield {
        label: `slices-to-split: ${x.label}`,
        graph: model.graph,
        add: { nodes: b.nodes, at: x.producer === undefined ? { before: first } : { after: x.producer } },
        addInitializers: b.initializers,
        redirect: cuts.flatMap((cut, i) => {
          const to = parts[i];
          return to === undefined ? [] : [{ from: cut.node.output(), to }];
        }),
        remove: cuts.map((cut) => cut.node),
      };
    }
  },
});

/** The slices of x that partition one static axis, in order; those in bodies of control flow do not count. */
function partition(x: Value, graph: Graph): Cut[] | undefined {
  const cuts = [...x.users]
    .filter((node) => node.graph === graph)
    .map(cutOf)
    .filter((cut) => cut !== undefined);
  for (const axis of new Set(cuts.map((cut) => cut.axis))) {
    const along = cuts.filter((cut) => cut.axis === axis).sort((a, b) => a.start - b.start);
    const size = sizeAt(x, axis);
    const joined = along.every((cut, i) => cut.start === (along[i - 1]?.end ?? 0));
    if (along.length > 1 && joined && along.at(-1)?.end === size) return along;
  }
  return undefined;
}

/** A Slice of one axis by constants with step 1, in positions from the front; empty ones do not count. */
function cutOf(node: Node): Cut | undefined {
  if (node.domain !== '' || node.op !== 'Slice' || node.inputs.length < 3) return undefined;
  const one = (index: number, fallback?: number): number | undefined => {
    const value = node.inputs[index];
    if (value === null || value === undefined) return fallback;
    const ints = intsOf(value);
    return ints?.length === 1 ? Number(ints[0]) : undefined;
  };
  const x = node.input(0);
  const rank = rankOf(x);
  const [start, end, axis, step] = [one(1), one(2), one(3, 0), one(4, 1)];
  if (rank === undefined || start === undefined || end === undefined || axis === undefined || step !== 1)
    return undefined;
  const along = axis < 0 ? axis + rank : axis;
  const size = sizeAt(x, along);
  if (size === undefined) return undefined;
  const clamp = (position: number) => Math.min(Math.max(position < 0 ? position + size : position, 0), size);
  const cut = { node, axis: along, start: clamp(start), end: clamp(end) };
  return cut.start < cut.end ? cut : undefined;
}
