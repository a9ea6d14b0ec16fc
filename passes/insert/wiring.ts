/**
 * Wiring of a stack of methods at one site. Each method sees the site as those before it left it: as a function from x
 * to y with stored weights. What it replaces is what its formula returns; where the site cannot show what the formula
 * reads or replaces, or a later method needs the weights themselves, the fold formula feeds the op instead.
 */
import { fail } from '../../src/errors.js';
import type { Node, Value } from '../../src/graph.js';
import { retype } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { adapterDropout } from '../dropout.js';
import type { Edit } from '../edit.js';
import { stopGradient } from '../grad/stop-gradient.js';
import { type AttachContext, type Method, rulesFor } from '../methods/contract/method.js';
import { dimsOf, openSite, storedOf } from '../sites/kinds/index.js';
import type { OpenSite, Stack, StoredValuesOf } from '../sites/kinds/kind.js';
import { EMPTY_STACK } from '../sites/kinds/stack.js';
import type { Site } from '../sites/site.js';

/** One method at a site, its parameters in the graph. */
export interface Layer {
  readonly method: Method;
  readonly config: Record<string, unknown>;
  readonly params: Readonly<Record<string, Value>>;
}

type Slots = Readonly<Record<string, Value>>;

/** How a method acts at a site that no other method has touched. */
interface Action {
  /** Its attach formula cannot be wired here: the fold formula has to stand in. */
  readonly foldOnly: boolean;
  /** It replaces stored tensors of the site, and other slots. */
  readonly weights: boolean;
  readonly activations: boolean;
}

/**
 * The edits that put methods at a site, first to last. In a stack, everything up to the last method that acts on weights
 * acts on the weights as well, so that the weights each method reads are those that the ones before it left.
 * Throws E_UNSUPPORTED where a method needs something that the site does not show and it has no fold formula.
 */
export function* wire(model: Model, site: Site, layers: readonly Layer[]): Generator<Edit> {
  if (layers.length > 1) refuseLost(model, site, layers);
  const actions = layers.map((layer) => actionOf(model, site, layer));
  const last =
    layers.length === 1 ? 0 : actions.findLastIndex(({ foldOnly, weights }) => foldOnly || weights);
  let stack = EMPTY_STACK;
  for (const [index, layer] of layers.entries()) {
    const { foldOnly, weights, activations } = actions[index] as Action;
    const followed = index < layers.length - 1;
    const onWeights = index < last || foldOnly || (followed && weights && activations);
    const label = `${layer.method.id} at ${site.path}`;
    const builder = new Builder(model, { provenance: label });
    const open = openSite(builder, site, stack);
    const replaced = onWeights
      ? weightForm(builder.op, open, layer, site)
      : (attached(builder, open, layer, site) as Slots);
    stack = yield* apply(builder, open, replaced, stack, { layer, site, label });
  }
}

/** Throws E_UNSUPPORTED where later methods put other numbers in place of everything that a method changed. */
function refuseLost(model: Model, site: Site, layers: readonly Layer[]): void {
  // A weight that only its op understands is never folded into.
  if (Object.values(storedOf(site)).some(({ storage }) => storage === 'packed')) return;
  const changes = layers.map((layer) => changesOf(model, site, layer));
  for (const [index, { method }] of layers.entries()) {
    const changed = [...(changes[index]?.keys() ?? [])];
    const later = changes.slice(index + 1);
    const overwriting = later.findIndex((change) => changed.some((slot) => change.get(slot) === 'new'));
    if (overwriting >= 0 && changed.every((slot) => later.some((change) => change.get(slot) === 'new')))
      fail('E_UNSUPPORTED', {
        message: `${layers[index + 1 + overwriting]?.method.id} trains the numbers here itself, and nothing of what ${method.id} does before it is left`,
        where: site.path,
        remedy: `Put ${method.id} behind it, or leave one of them out at this module`,
      });
  }
}

/** Stored tensors that a fold changes: from what they were, or into something `new` that does not depend on it. */
function changesOf(model: Model, site: Site, layer: Layer): Map<string, 'changed' | 'new'> {
  const builder = new Builder(model);
  const stored = storedValues(openSite(builder, site, EMPTY_STACK), site);
  const folded = foldOf(builder.op, stored, layer, site);
  if (typeof folded === 'string') return new Map();
  return new Map(
    Object.entries(folded).flatMap(([slot, value]) => {
      const before = stored[slot];
      if (before === undefined || value === before) return [];
      return [[slot, dependsOn(value, before) ? 'changed' : 'new']];
    }),
  );
}

function dependsOn(value: Value, on: Value): boolean {
  const seen = new Set<Value>();
  const queue = [value];
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    if (next === on) return true;
    if (seen.has(next)) continue;
    seen.add(next);
    for (const input of next.producer?.inputs ?? []) if (input !== null) queue.push(input);
  }
  return false;
}

/** Asked on a builder whose nodes nobody keeps. */
function actionOf(model: Model, site: Site, layer: Layer): Action {
  const builder = new Builder(model);
  const replaced = attached(builder, openSite(builder, site, EMPTY_STACK), layer, site);
  if (replaced === undefined || hidesBias(model, site, layer))
    return { foldOnly: true, weights: true, activations: false };
  const slots = Object.keys(replaced);
  const stored = storedOf(site);
  return {
    foldOnly: false,
    weights: slots.some((slot) => Object.hasOwn(stored, slot)),
    activations: slots.some((slot) => !Object.hasOwn(stored, slot)),
  };
}

/** What the method's formula replaces; undefined where the site lacks one of these slots. */
function attached(builder: Builder, open: OpenSite, layer: Layer, site: Site): Slots | undefined {
  const rules = rulesFor(layer.method, site.kind, site.path);
  // A site without an output of its own (a projection inside a fused op) shows nothing to act on.
  if (!Object.hasOwn(open.slots, 'y') && 'y' in open.view && open.view.y === undefined) return undefined;
  const context: AttachContext = {
    dropout: (x, p) => adapterDropout(builder, x, p),
    stopGradient: (value) => stopGradient(builder, value),
  };
  // y has no bias in it where a fused op adds it later: it is that of a linear without one.
  const view = biasJoinsLater(site) ? withoutBias(open.view) : open.view;
  const replaced = rules.attach(builder.op, view, layer.params, layer.config, context);
  return Object.keys(replaced).every((slot) => Object.hasOwn(open.slots, slot)) ? replaced : undefined;
}

function biasJoinsLater(site: Site): boolean {
  return 'bias' in site && site.bias?.included === false;
}

function withoutBias(view: object): object {
  return Object.create(view, { b: { value: undefined, enumerable: true } }) as object;
}

/** The fold formula as part of the graph: W' = W + … feeds the op. */
function weightForm(op: Ops, open: OpenSite, layer: Layer, site: Site): Slots {
  const stored = storedValues(open, site);
  const folded = foldOf(op, stored, layer, site);
  if (typeof folded === 'string')
    return fail('E_UNSUPPORTED', {
      message: `${layer.method.id} cannot act on the weights here: ${folded}`,
      where: site.path,
      remedy: 'Export the model without fusion, or put this method last at the module',
    });
  return Object.fromEntries(Object.entries(folded).filter(([slot, value]) => value !== stored[slot]));
}

/** Folded tensors of a site, or why there are none. */
function foldOf(
  op: Ops,
  stored: StoredValuesOf,
  { method, config, params }: Layer,
  site: Site,
): StoredValuesOf | string {
  const { fold } = rulesFor(method, site.kind, site.path);
  if (typeof fold !== 'function') return fold.impossible;
  const folded = fold(op, stored, params, config, dimsOf(site));
  return typeof folded.impossible === 'string' ? folded.impossible : (folded as StoredValuesOf);
}

/** Stored tensors of an open site as formulas read them: built when read. */
function storedValues({ view }: OpenSite, site: Site): StoredValuesOf {
  const stored = {};
  for (const slot of Object.keys(storedOf(site)))
    Object.defineProperty(stored, slot, {
      enumerable: true,
      get: () => (view as Record<string, Value>)[slot],
    });
  return stored;
}

/** Edits for the replaced slots, each with the nodes it needs; returns the stack with the layer on it. */
function* apply(
  builder: Builder,
  { slots }: OpenSite,
  replaced: Slots,
  stack: Stack,
  { layer, site, label }: { readonly layer: Layer; readonly site: Site; readonly label: string },
): Generator<Edit, Stack> {
  const current = new Map(stack.current);
  const placed = new Set<Node>();
  let onWeights = true;
  // Inputs of the site first: what reads its output comes behind them.
  const order = Object.keys(slots).filter((slot) => replaced[slot] !== undefined);
  const wirings = order.map((slot) => ({ slot, ...slots[slot]!(replaced[slot]!) }));
  for (const [index, { slot, at, redirects, replaced: value, retyped }] of wirings.entries()) {
    const needed = redirects.map(({ to }) => to);
    const nodes =
      index === wirings.length - 1
        ? builder.nodes.filter((node) => !placed.has(node))
        : closure(builder.nodes, needed).filter((node) => !placed.has(node));
    for (const node of nodes) placed.add(node);
    if (value !== undefined) current.set(slot, value);
    onWeights &&= Object.hasOwn(storedOf(site), slot);
    yield {
      label,
      graph: site.graph,
      add: { nodes, at },
      ...(index === 0 ? { addInitializers: builder.initializers } : {}),
      redirect: redirects,
    };
    if (retyped !== undefined) retype(builder.model, retyped);
  }
  const fold = (op: Ops, stored: StoredValuesOf): StoredValuesOf => {
    const folded = foldOf(op, stored, layer, site);
    if (typeof folded === 'string')
      return fail('E_UNSUPPORTED', {
        message: `No method that reads the weights can follow ${layer.method.id}: ${folded}`,
        where: site.path,
        remedy: `Put ${layer.method.id} last at this module`,
      });
    return { ...stored, ...folded };
  };
  return {
    current,
    inner: new Set([...stack.inner, ...builder.nodes]),
    folds: onWeights ? stack.folds : [...stack.folds, fold],
  };
}

/** Nodes among `all` that the values are computed by, in order. */
function closure(all: readonly Node[], values: readonly Value[]): Node[] {
  const own = new Set(all);
  const found = new Set<Node>();
  const queue = [...values];
  for (let value = queue.pop(); value !== undefined; value = queue.pop()) {
    const node = value.producer;
    if (node === undefined || !own.has(node) || found.has(node)) continue;
    found.add(node);
    for (const input of node.inputs) if (input !== null) queue.push(input);
  }
  return all.filter((node) => found.has(node));
}

/** A bias that joins behind the output is out of reach for a formula that changes it. */
function hidesBias(model: Model, site: Site, layer: Layer): boolean {
  if (!biasJoinsLater(site)) return false;
  const builder = new Builder(model);
  const stored = storedValues(openSite(builder, site, EMPTY_STACK), site);
  const folded = foldOf(builder.op, stored, layer, site);
  return typeof folded !== 'string' && folded.b !== undefined && folded.b !== stored.b;
}
