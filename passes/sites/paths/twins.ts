/**
 * Modules of which both branches of an If hold a copy, as merged decoders of older tools do: one module, trained once
 * and folded into both copies.
 */
import { type Graph, type Node, walkNodes } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import type { Draft } from '../draft.js';
import { payloadOf } from '../payload.js';

/**
 * Whether two drafts that were found under one path are such copies: weights of equal type and, where they are at hand,
 * of equal bytes, in different branches of one node.
 */
export function twinTest(model: Model): (a: Draft, b: Draft) => boolean {
  const holders = new Map<Graph, Node>();
  for (const node of walkNodes(model.graph)) {
    const { subgraphs } = node;
    // Bodies of a loop run one after the other; of several bodies, one runs.
    if (subgraphs.length > 1) for (const body of subgraphs) holders.set(body, node);
  }
  return (a, b) => {
    const holder = holders.get(a.graph);
    return holder !== undefined && a.graph !== b.graph && holders.get(b.graph) === holder && sameWeight(a, b);
  };
}

function sameWeight(a: Draft, b: Draft): boolean {
  const [x, y] = [payloadOf(a.weight.value), payloadOf(b.weight.value)];
  if (x === undefined || y === undefined || x.dtype !== y.dtype || x.dims.join() !== y.dims.join())
    return false;
  const [p, q] = [x.data.inline, y.data.inline];
  return p === undefined || q === undefined || Buffer.compare(p, q) === 0;
}
