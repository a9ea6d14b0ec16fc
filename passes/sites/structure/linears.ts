/** The linears of a model by the values they make and the nodes they are. */
import type { Node, Value } from '../../../src/graph.js';
import type { LinearSite } from '../site.js';
import { mayBeFloat, quantizes, type Reading } from './trace.js';

export interface Linears {
  /** Linears, whole or column ranges, by output. A range wins where it is the whole output's only owner. */
  readonly byOutput: ReadonlyMap<Value, LinearSite>;
  /** Whole linears by node. */
  readonly byNode: ReadonlyMap<Node, LinearSite>;
  /** Column ranges by the path of their whole. */
  readonly parts: ReadonlyMap<string, readonly LinearSite[]>;
  readonly wholes: ReadonlyMap<string, LinearSite>;
  /** Place in the order of execution. */
  readonly order: ReadonlyMap<Node, number>;
}

export function linearsOf(sites: readonly LinearSite[], order: ReadonlyMap<Node, number>): Linears {
  const byOutput = new Map<Value, LinearSite>();
  const byNode = new Map<Node, LinearSite>();
  const parts = new Map<string, LinearSite[]>();
  const wholes = new Map<string, LinearSite>();
  for (const site of sites) {
    if (site.y !== undefined && (site.kind !== 'linear' || site.range === undefined))
      byOutput.set(site.y, site);
    const { bias } = site;
    // Behind rounding, the bias comes after what the site shows as its output.
    if (bias?.included === false && bias.node.qualifiedOp === 'Add') byOutput.set(bias.node.output(0), site);
    if (site.packedIn === undefined) {
      byNode.set(site.node, site);
      wholes.set(site.path, site);
      // A fused op may read the product before its bias.
      for (const output of site.node.outputs)
        if (output !== null && !byOutput.has(output)) byOutput.set(output, site);
    } else {
      const list = parts.get(site.packedIn);
      if (list === undefined) parts.set(site.packedIn, [site]);
      else list.push(site);
    }
  }
  return { byOutput, byNode, parts, wholes, order };
}

/**
 * The linears that `value` is computed from without another linear in between, in order of execution. Only floats are
 * followed: shapes say nothing about what feeds what.
 */
export function feeding(value: Value, { byOutput, byNode, order }: Linears, limit = 2000): LinearSite[] {
  const found = new Set<LinearSite>();
  const seen = new Set<Value>();
  const stack = [value];
  for (let at = stack.pop(); at !== undefined && seen.size < limit; at = stack.pop()) {
    if (seen.has(at) || !mayBeFloat(at)) continue;
    seen.add(at);
    const site = byOutput.get(at) ?? (at.producer === undefined ? undefined : byNode.get(at.producer));
    if (site !== undefined) {
      found.add(site);
      continue;
    }
    for (const input of at.producer?.inputs ?? []) if (input !== null) stack.push(input);
  }
  return [...found].sort((a, b) => (order.get(a.node) ?? 0) - (order.get(b.node) ?? 0));
}

/** The whole that a column range is part of; the site itself where it is whole. */
export function wholeOf(site: LinearSite, { wholes }: Linears): LinearSite {
  return site.packedIn === undefined ? site : (wholes.get(site.packedIn) ?? site);
}

/** Where a whole linear reads its `x`: the node itself, or what makes codes of it first. */
export function readingOf({ node, x }: LinearSite): Reading {
  const index = node.inputs.indexOf(x);
  const coder = node.inputs.find(
    (input) => input?.producer !== undefined && quantizes(input.producer),
  )?.producer;
  return index < 0 && coder?.inputs[0] === x
    ? { node: coder, index: 0 }
    : { node, index: Math.max(0, index) };
}
