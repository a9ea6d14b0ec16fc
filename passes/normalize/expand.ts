/** Replaces fused and composite operators by standard ops that have gradient rules. */
import type { Node } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { definePass } from '../pass.js';
import type { Expansion } from './expansion.js';
import { attentions } from './expansions/attention.js';
import { crossEntropies } from './expansions/cross-entropy.js';
import { fusedNorms } from './expansions/norm.js';
import { replaceNode } from './rewrite.js';

const EXPANSIONS: ReadonlyMap<string, Expansion> = new Map(
  [...fusedNorms, ...attentions, ...crossEntropies].map((expansion) => [
    key(expansion.op, expansion.domain ?? ''),
    expansion,
  ]),
);

function key(op: string, domain: string): string {
  return `${domain}:${op}`;
}

/** Every registered expansion. */
export function allExpansions(): readonly Expansion[] {
  return [...EXPANSIONS.values()];
}

/** Whether the operator is replaced by standard ops before differentiation. */
export function hasExpansion(op: string, domain = ''): boolean {
  return EXPANSIONS.has(key(op, domain));
}

function expansionOf(node: Node): Expansion | undefined {
  return EXPANSIONS.get(key(node.op, node.domain));
}

export const expandPass = definePass({
  name: 'expand-fused',
  summary: 'replaces fused and composite operators by standard ones',
  *run(model: Model) {
    for (const node of model.graph.nodes()) {
      const expansion = expansionOf(node);
      if (expansion === undefined) continue;
      let covered = true;
      const edit = replaceNode(model, node, 'expand-fused', (b) => {
        const outputs = expansion.expand(b, node);
        covered = outputs !== undefined;
        return outputs ?? [];
      });
      // An uncovered form stays and is reported by the backward pass if it lies on a path.
      if (covered) yield edit;
    }
  },
});
