/** What each linear is for, read off the attentions and the blocks around it. */
import type { Node, Value } from '../../../src/graph.js';
import type { LinearRole, LinearSite } from '../site.js';
import type { AttentionCore } from './attention.js';
import { feeding, type Linears, wholeOf } from './linears.js';
import { origin, passes, quantizes, scaling } from './trace.js';

export type Roles = Map<LinearSite, LinearRole>;

/** Roles of the projections into and out of attentions. The first attention that reads a linear names it. */
export function attentionRoles(cores: readonly AttentionCore[], linears: Linears): Roles {
  const roles: Roles = new Map();
  const give = (site: LinearSite | undefined, role: LinearRole): void => {
    if (site !== undefined && !roles.has(site)) roles.set(site, role);
  };
  for (const core of cores) {
    const { query, key, value } = core;
    const counts = new Map<LinearSite, number>();
    for (const site of [query, key, value])
      if (site !== undefined) counts.set(site, (counts.get(site) ?? 0) + 1);
    for (const [site, count] of counts) if (count > 1) give(site, 'packed');
    give(query, 'query');
    give(key, 'key');
    give(value, 'value');
    for (const site of [query, key, value])
      if (site?.packedIn !== undefined) give(wholeOf(site, linears), 'packed');
    give(readerOf(core.output, linears), 'attention-output');
  }
  return roles;
}

/** The linear that reads a value through layout ops and elementwise products. */
function readerOf(value: Value, { byNode }: Linears, depth = 12): LinearSite | undefined {
  if (depth === 0) return undefined;
  for (const use of value.uses) {
    if (use.kind !== 'node') continue;
    const { node, index } = use;
    const site = byNode.get(node);
    if (site !== undefined && node.inputs[index] === site.x) return site;
    if (quantizes(node)) {
      const readers = [...node.output(0).users].map((reader) => byNode.get(reader));
      const quantised = readers.find((linear) => linear?.x === value);
      if (quantised !== undefined) return quantised;
    }
    const on = (passes(node, 'layout') && index === 0) || node.qualifiedOp === 'Mul';
    const found = on ? readerOf(node.output(0), { byNode } as Linears, depth - 1) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Roles in a feed-forward block, from the linear that ends it. Blocks of more than two linears in front get none. */
export function feedForwardRoles(down: LinearSite, linears: Linears, roles: Roles): void {
  const give = (site: LinearSite | undefined, role: LinearRole): void => {
    if (site !== undefined && !roles.has(site)) roles.set(site, role);
  };
  give(down, 'down');
  const first = feeding(down.x, linears);
  const [a, b] = first;
  if (first.length === 1) give(a, 'up');
  if (first.length !== 2 || a === undefined || b === undefined) return;
  const gate = gateOf(down.x, a, b, linears) ?? a;
  give(gate, 'gate');
  give(gate === a ? b : a, 'up');
  for (const site of [a, b]) if (site.packedIn !== undefined) give(wholeOf(site, linears), 'up');
}

/** Of two linears whose outputs are multiplied, the one that passes the activation. */
export function gateOf(value: Value, a: LinearSite, b: LinearSite, linears: Linears): LinearSite | undefined {
  const product = productBehind(value);
  if (product === undefined) return undefined;
  const sides = [product.input(0), product.input(1)].map((side) => ({ side, from: feeding(side, linears) }));
  for (const { side, from } of sides) {
    const [only] = from;
    if (from.length === 1 && only !== undefined && isOutput(origin(side, 'order'), only))
      return only === a ? b : a;
  }
  return undefined;
}

function isOutput(value: Value, { y, node }: LinearSite): boolean {
  return value === y || (y !== undefined && value === origin(y, 'order')) || node.outputs.includes(value);
}

function productBehind(value: Value): Node | undefined {
  let at = value;
  for (let node = at.producer; node !== undefined; node = at.producer) {
    const scaled = scaling(node);
    if (scaled !== undefined) at = scaled.input;
    else if (node.qualifiedOp === 'Mul') return node;
    else if (passes(node, 'layout')) at = node.input(0);
    else return undefined;
  }
  return undefined;
}
