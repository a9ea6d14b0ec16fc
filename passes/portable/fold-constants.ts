/** Values that are known before any run become weights, and what computed them goes. */
import { type Node, Value } from '../../src/graph.js';
import { constantOf } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { tensorType } from '../../src/types.js';
import { definePass } from '../pass.js';

/** Run it on a typed model: it takes what inference found, and computes nothing itself. */
export const foldConstants = definePass({
  name: 'fold-constants',
  summary: 'turns values whose contents are known into weights',
  *run(model: Model) {
    const { graph } = model;
    for (const node of [...graph.nodes()]) {
      for (const from of node.outputs) {
        if (from === null || from.uses.size === 0) continue;
        const tensor = constantOf(from);
        if (tensor === undefined) continue;
        const to = new Value({ hint: from.hint, type: tensorType(tensor.dtype, tensor.dims), tensor });
        yield {
          label: `fold-constants: ${from.label}`,
          graph,
          redirect: [{ from, to }],
          addInitializers: [to],
        };
      }
      const dead = unread(node);
      if (dead.length > 0) yield { label: `fold-constants: ${node.label} is not read`, graph, remove: dead };
    }
  },
});

/** The node and those before it that nothing reads any more, in graph order. */
function unread(node: Node): Node[] {
  const dead = new Set<Node>();
  const visit = (candidate: Node): void => {
    if (dead.has(candidate) || candidate.graph !== node.graph || candidate.subgraphs.length > 0) return;
    const needed = candidate.outputs.some(
      (output) =>
        output !== null && [...output.uses].some((use) => use.kind === 'output' || !dead.has(use.node)),
    );
    if (needed) return;
    dead.add(candidate);
    for (const input of candidate.inputs) if (input?.producer !== undefined) visit(input.producer);
  };
  visit(node);
  return [...dead].reverse();
}
