/**
 * Fused operators hide sites inside them. A method that acts on such sites has them taken apart first; what folds never
 * asks for them, so that a folded model keeps the base's operators.
 */
import { cloneModel } from '../../src/clone.js';
import { type Node, type Value, walkNodes } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { whyNotExpanded } from '../normalize/expand.js';
import { fusedAttention, inferenceOnly } from '../normalize/expansions/attention/index.js';
import { unfuseAttention } from '../normalize/unfuse.js';
import type { Pass } from '../pass.js';
import { runPasses } from '../runner.js';
import { findWeightSites } from './find.js';
import type { SiteKind } from './site.js';

/** Confidence of paths that the order of the graph gives: an opened graph gives its own. */
const STRUCTURE = 0.5;

interface Opener {
  /** Whether sites of the kind are inside the operator. */
  hides(node: Node): boolean;
  readonly pass: Pass;
  /** Kinds of sites that may come to light besides. */
  readonly reveals: readonly SiteKind[];
}

/** By kind of site that has no place of its own inside fused operators. */
const OPENERS: ReadonlyMap<string, Opener> = new Map<SiteKind, Opener>([
  // Rotary positions are read inside where the operator turns queries and keys itself.
  ['attention', { hides: isFusedAttention, pass: unfuseAttention, reveals: ['position'] }],
]);

function isFusedAttention({ domain, op, qualifiedOp }: Node): boolean {
  return fusedAttention.has(qualifiedOp) || (domain === 'com.microsoft' && Object.hasOwn(inferenceOnly, op));
}

function openersOf(kinds: Iterable<string>): Opener[] {
  return [...new Set(kinds)].flatMap((kind) => OPENERS.get(kind) ?? []);
}

/** Whether sites of this kind may be inside fused operators. */
export function canBeHidden(kind: string): kind is SiteKind {
  return [...OPENERS].some(([own, { reveals }]) => own === kind || reveals.some((other) => other === kind));
}

/** Nodes that hide sites of these kinds. */
export function hiding(model: Model, kinds: Iterable<string>): Node[] {
  const openers = openersOf(kinds);
  return openers.length === 0
    ? []
    : [...walkNodes(model.graph)].filter((node) => openers.some(({ hides }) => hides(node)));
}

/** Takes apart what hides sites of these kinds, in place. Returns what the operators were called; empty where nothing was hidden. */
export function openSites(model: Model, kinds: Iterable<string>): string[] {
  const wanted = [...kinds];
  const nodes = hiding(model, wanted);
  if (nodes.length === 0) return [];
  inferModel(model);
  const inside = projectionsIn(model, new Set(nodes));
  const passes = openersOf(wanted).map(({ pass }) => pass);
  runPasses(model, passes);
  nameProducts(inside);
  const left = new Set(hiding(model, wanted));
  return nodes.filter((node) => !left.has(node)).map(({ label }) => label);
}

/** What only the operator's own name says the path of: by the weight that the operator reads, whole projections. */
function projectionsIn(model: Model, nodes: ReadonlySet<Node>): Map<Value, string> {
  const found = new Map<Value, string>();
  for (const { kind, node, path, confidence, weight, ...site } of findWeightSites(model)) {
    const whole = kind !== 'linear' || !('packedIn' in site) || site.packedIn === undefined;
    if (nodes.has(node) && whole && confidence > STRUCTURE) found.set(weight.consumed, path);
  }
  return found;
}

/** Products that took the place of projections inside an operator keep their path, as the scope of their name. */
function nameProducts(inside: ReadonlyMap<Value, string>): void {
  for (const [weight, path] of inside)
    for (const node of weight.users)
      if (node.qualifiedOp === 'MatMul') node.name ??= `/${path.replace(/#\d+$/, '')}/MatMul`;
}

/** The model with what hides sites of these kinds taken apart: itself where nothing is hidden, else a copy. */
export function opened(model: Model, kinds: Iterable<string>): Model {
  const wanted = [...kinds];
  if (hiding(model, wanted).length === 0) return model;
  const { model: copy } = cloneModel(model);
  openSites(copy, wanted);
  return copy;
}

/** Why an operator that hides sites of these kinds is not taken apart; undefined where none is left. */
export function whyHidden(model: Model, kinds: Iterable<string>): string | undefined {
  const [node] = hiding(model, kinds);
  if (node === undefined) return undefined;
  return `${node.label} cannot be taken apart: ${whyNotExpanded(model, node) ?? 'its form has no formula'}`;
}

/** Operators that hide sites of these kinds and have no formula, with the reasons. */
export function closed(
  model: Model,
  kinds: Iterable<string>,
): { readonly node: Node; readonly reason: string }[] {
  return hiding(model, kinds).flatMap((node) => {
    const reason = whyNotExpanded(model, node);
    return reason === undefined ? [] : [{ node, reason }];
  });
}
