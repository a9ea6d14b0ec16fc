/** Replaces fused and composite operators by standard ops that have gradient rules. */
import type { Node } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { definePass } from '../pass.js';
import { type Expanded, type Expansion, tryExpand } from './expansion.js';
import { attentions, inferenceOnly } from './expansions/attention/index.js';
import { crossEntropies } from './expansions/cross-entropy.js';
import { fusedNorms } from './expansions/norm.js';
import { fusedProducts } from './expansions/product.js';
import { replaceNode } from './rewrite.js';

const EXPANSIONS: ReadonlyMap<string, Expansion> = new Map(
  [...fusedNorms, ...attentions, ...fusedProducts, ...crossEntropies].map((expansion) => [
    key(expansion.op, expansion.domain ?? ''),
    expansion,
  ]),
);

function key(op: string, domain: string): string {
  return `${domain}:${op}`;
}

/** Whether the operator is replaced by standard ops before differentiation. */
export function hasExpansion(op: string, domain = ''): boolean {
  return EXPANSIONS.has(key(op, domain));
}

function expansionOf(node: Node): Expansion | undefined {
  return EXPANSIONS.get(key(node.op, node.domain));
}

/** Why a fused node that is still there was not expanded; undefined for other nodes. */
export function whyNotExpanded(model: Model, node: Node): string | undefined {
  const expansion = expansionOf(node);
  if (expansion === undefined) return node.domain === 'com.microsoft' ? inferenceOnly[node.op] : undefined;
  const result = tryExpand(expansion, new Builder(model), node);
  return 'refused' in result ? result.refused : undefined;
}

export const expandPass = expandWhere(
  () => true,
  'expand-fused',
  'replaces fused and composite operators by standard ones',
);

/** Expands the nodes that `select` picks. A form that is not covered stays; the backward pass reports it on a path. */
export function expandWhere(select: (node: Node) => boolean, name: string, summary: string) {
  return definePass({
    name,
    summary,
    *run(model: Model) {
      for (const node of model.graph.nodes()) {
        const expansion = expansionOf(node);
        if (expansion === undefined || !select(node)) continue;
        let covered = true;
        const edit = replaceNode(model, node, name, (b): Expanded => {
          const result = tryExpand(expansion, b, node);
          covered = !('refused' in result);
          return 'refused' in result ? [] : result;
        });
        if (covered) yield edit;
      }
    },
  });
}
