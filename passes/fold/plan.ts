/**
 * Folding, planned: which stored tensors change, by which formula, which are shared, and what cannot fold and why. The
 * plan is a description; `runtime/fold` evaluates its formulas and nothing here reads a weight.
 */
import { fail } from '../../src/errors.js';
import { type Node, type Use, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { didYouMean } from '../../src/nearest.js';
import { tensorType } from '../../src/types.js';
import type { AdapterRecord, AdapterSite } from '../adapter-record.js';
import type { Edit } from '../edit.js';
import { type AnyFold, type Method, rulesFor } from '../methods/contract/method.js';
import { resolveMethod } from '../methods/registry.js';
import type { Pass } from '../pass.js';
import { findSites } from '../sites/index.js';
import { storedOf } from '../sites/kinds/index.js';
import type { StoredTensor } from '../sites/kinds/kind.js';
import { canBeHidden } from '../sites/opened.js';
import { payloadOf } from '../sites/payload.js';
import type { Site } from '../sites/site.js';
import { claimName, valueNames } from '../value-names.js';
import { type BlockAxes, blockAxes } from './blocks.js';
import { FoldFormula, type FoldInput, type FoldLayer } from './formula.js';

/** What happens to a weight that others read too: copy it for the adapted use, change it for all, or refuse. */
export const SHARED_POLICIES = ['clone', 'all', 'error'] as const;
export type SharedPolicy = (typeof SHARED_POLICIES)[number];

/** One stored tensor and the formula of its new value. */
export interface FoldTask {
  /** The initializer whose numbers change: one of the model, or the copy of one (see `FoldPlan.copies`). */
  readonly target: Value;
  /** Module paths folded into it, in order. */
  readonly sites: readonly string[];
  /**
   * Inputs: `w` (the stored tensor) where the formula reads it, and those of `inputs`; output: `folded`, of the stored
   * shape. All `computeDtype` but indices.
   */
  readonly formula: Model;
  readonly inputs: ReadonlyMap<string, FoldInput>;
  /**
   * How to cut the inputs so that the formula gives rows of the stored tensor; those axes are symbolic in the formula.
   * Undefined when it needs the tensor whole.
   */
  readonly blocks: BlockAxes | undefined;
}

/** A weight that gets a twin, because some of its readers want other numbers than the rest. */
export interface SharedWeight {
  readonly of: Value;
  /** Added to the model by `separateShared`. */
  readonly copy: Value;
  /** The readers that move to the copy. */
  readonly uses: readonly Use[];
  /** Modules the copy is for; empty when it is for the readers that no adapter concerns. */
  readonly sites: readonly string[];
}

export interface FoldPlan {
  readonly tasks: readonly FoldTask[];
  readonly copies: readonly SharedWeight[];
  /** What keeps its nodes in a merged model, with the method's reason. */
  readonly impossible: readonly Unfolded[];
  /** Modules whose quantised weights a fold would change, what `impossible` marks, with every call of theirs. */
  readonly quantised: readonly Site[];
}

/** A method at a site that does not fold. */
export interface Unfolded {
  readonly path: string;
  readonly method: string;
  readonly reason: string;
  readonly site: AdapterSite;
  /** It would fold if the weight of the module were floats. */
  readonly quantised?: true;
}

export interface PlanFoldOptions {
  /** Dtype formulas are evaluated in; default float32. */
  readonly computeDtype?: 'float32' | 'float64';
  /** Default `clone`. */
  readonly shared?: SharedPolicy;
  /** Methods of one's own that the record may name. */
  readonly methods?: readonly Method[];
  readonly paths?: ReadonlyMap<string, string>;
}

/** Plans the fold of an adapter into a base model. Throws E_NO_MATCH when a module of the adapter is not in the model. */
export function planFold(base: Model, record: AdapterRecord, options: PlanFoldOptions = {}): FoldPlan {
  const sites = new Map(
    findSites(base, options.paths === undefined ? {} : { paths: options.paths }).map((s) => [siteKey(s), s]),
  );
  const methods = record.entries.map(({ method }) => resolveMethod(method, options.methods));
  const impossible: Unfolded[] = [];
  const stacks = new Map<Site, FoldLayer[]>();
  const blocked = new Map<Site, string>();
  const quantised = new Set<Site>();
  for (const recorded of record.sites) {
    const method =
      methods[recorded.entry] ??
      fail('E_INVALID_DATA', { message: 'The adapter record names an entry it lacks' });
    const found = sites.get(siteKey(recorded));
    const hidden = found === undefined ? unfoldedInside(method, recorded) : undefined;
    if (hidden !== undefined) {
      impossible.push(hidden);
      continue;
    }
    const site = found ?? missing(recorded.path, sites);
    const { fold } = rulesFor(method, site.kind, site.path);
    const behind = blocked.get(site);
    const reason =
      behind === undefined
        ? reasonAgainst(site, recorded, fold)
        : `it stands behind ${behind}, which stays in the graph`;
    if (reason === undefined) push(stacks, site, { recorded, fold: fold as AnyFold });
    else {
      if (reason === QUANTIZED) quantised.add(site);
      const unfolded = { path: site.path, method: method.id, reason, site: recorded };
      impossible.push(quantised.has(site) ? { ...unfolded, quantised: true } : unfolded);
      blocked.set(site, method.id);
    }
  }
  const byTensor = new Map<Value, FoldedSite[]>();
  for (const [site, layers] of stacks)
    for (const [slot, stored] of changedTensors(site, layers)) {
      push(byTensor, stored.value, { site, slot, stored, layers });
      for (const twin of ownTensors([...sites.values()], site, slot))
        push(byTensor, twin.stored.value, { ...twin, slot, layers });
    }
  const planner = new Planner(valueNames(base), [...sites.values()], options);
  for (const [weight, folded] of byTensor) planner.add(weight, folded);
  const calls = (of: Site): Site[] =>
    [...sites.values()].filter(
      (site) => site.kind === of.kind && site.callOf === of.path && isQuantised(site),
    );
  return {
    tasks: planner.tasks,
    copies: planner.copies,
    impossible,
    quantised: [...quantised].flatMap((site) => [site, ...calls(site)]),
  };
}

function isQuantised(site: Site): boolean {
  return Object.values(storedOf(site)).some(({ storage }) => storage !== 'dense');
}

/** A site that may be inside a fused operator of the base, where there is nothing to fold into. */
function unfoldedInside(method: Method, site: AdapterSite): Unfolded | undefined {
  const { kind, path } = site;
  if (!canBeHidden(kind)) return undefined;
  const { fold } = rulesFor(method, kind, path);
  return typeof fold === 'function' ? undefined : { path, method: method.id, reason: fold.impossible, site };
}

/** One stored tensor of a site, and the stack that changes it. */
interface FoldedSite {
  readonly site: Site;
  readonly slot: string;
  readonly stored: StoredTensor;
  readonly layers: readonly FoldLayer[];
}

/** Sites of several kinds may share a module path. */
function siteKey({ kind, path }: { readonly kind: string; readonly path: string }): string {
  return `${kind} ${path}`;
}

/** Why nothing folds into integers as they are; `--quantised` says what to do about it. */
const QUANTIZED = 'the weight is quantised';

function reasonAgainst(
  site: Site,
  recorded: AdapterSite,
  fold: AnyFold | { readonly impossible: string },
): string | undefined {
  if (typeof fold !== 'function') return fold.impossible;
  const formula = new FoldFormula(site, 'float32');
  const stored = formula.stored();
  const folded = formula.layer(stored, { recorded, fold });
  if (typeof folded === 'string') return folded;
  for (const [slot, { storage }] of Object.entries(storedOf(site)))
    if (storage !== 'dense' && folded[slot] !== undefined && folded[slot] !== stored[slot]) return QUANTIZED;
  return undefined;
}

/** Stored tensors that a stack gives new numbers. */
function changedTensors(site: Site, layers: readonly FoldLayer[]): [string, StoredTensor][] {
  const formula = new FoldFormula(site, 'float32');
  const before = formula.stored();
  const after = formula.layers(before, layers);
  return Object.entries(storedOf(site)).filter(([slot]) => after[slot] !== before[slot]);
}

/** Tensors that further calls of a module store for themselves: a bias in each branch of an If. */
function ownTensors(
  sites: readonly Site[],
  of: Site,
  slot: string,
): { readonly site: Site; readonly stored: StoredTensor }[] {
  const seen = new Set<Value | undefined>([storedOf(of)[slot]?.value]);
  return sites.flatMap((site) => {
    if (site.kind !== of.kind || site.callOf !== of.path) return [];
    const stored = storedOf(site)[slot];
    if (stored === undefined || seen.has(stored.value)) return [];
    seen.add(stored.value);
    return [{ site, stored }];
  });
}

class Planner {
  readonly tasks: FoldTask[] = [];
  readonly copies: SharedWeight[] = [];

  constructor(
    readonly taken: Set<string>,
    readonly sites: readonly Site[],
    readonly options: PlanFoldOptions,
  ) {}

  /**
   * Plans all folds into one stored weight. Column ranges of a packed weight go into it together; modules that each
   * want the whole of it (tied embeddings) get a tensor of their own but for the first.
   */
  add(weight: Value, folded: readonly FoldedSite[]): void {
    const groups = compatibleGroups(folded);
    const readers = groups.map((group) => this.#uses(weight, group));
    const concerned = new Set(readers.flat());
    const others = [...weight.uses].filter((use) => !concerned.has(use));
    const policy = this.options.shared ?? 'clone';
    if (policy !== 'clone') refuseSharing(weight, groups, others, policy);
    if (policy === 'clone' && others.length > 0) this.#copy(weight, `${weight.label}_base`, others, []);
    groups.forEach((group, index) => {
      const paths = group.map(({ site }) => site.path);
      const uses = readers[index] ?? [];
      const suffix = group[0]?.slot === 'b' ? 'bias' : 'weight';
      const target = index === 0 ? weight : this.#copy(weight, `${paths[0]}.${suffix}`, uses, paths);
      this.tasks.push(planTask(weight, target, group, this.options.computeDtype ?? 'float32'));
    });
  }

  /** Readers of a weight that want the folded numbers: the first node on the way to the op, at every call. */
  #uses(weight: Value, group: readonly FoldedSite[]): Use[] {
    const slots = new Map(
      group.map(({ site: { kind, path, callOf = path }, slot }) => [siteKey({ kind, path: callOf }), slot]),
    );
    const nodes = new Set<Node>();
    for (const site of this.sites) {
      const slot = slots.get(siteKey({ kind: site.kind, path: site.callOf ?? site.path }));
      const reader = slot === undefined ? undefined : storedOf(site)[slot]?.reader;
      if (reader !== undefined) nodes.add(reader);
    }
    return [...weight.uses].filter((use) => use.kind === 'node' && nodes.has(use.node));
  }

  #copy(of: Value, wanted: string, uses: readonly Use[], sites: readonly string[]): Value {
    const { type } = of;
    const tensor = payloadOf(of);
    const copy = new Value({
      name: claimName(wanted, this.taken),
      ...(type === undefined ? {} : { type }),
      ...(tensor === undefined ? {} : { tensor }),
    });
    this.copies.push({ of, copy, uses, sites });
    return copy;
  }
}

/** Splits sites of one tensor so that within a group no two write the same column. */
function compatibleGroups(folded: readonly FoldedSite[]): FoldedSite[][] {
  const groups: FoldedSite[][] = [];
  for (const entry of folded) {
    const group = groups.find((members) => members.every((member) => disjoint(member.stored, entry.stored)));
    if (group === undefined) groups.push([entry]);
    else group.push(entry);
  }
  return groups;
}

function disjoint({ columns: p }: StoredTensor, { columns: q }: StoredTensor): boolean {
  return p !== undefined && q !== undefined && (p.end <= q.start || q.end <= p.start);
}

function refuseSharing(
  weight: Value,
  groups: readonly (readonly FoldedSite[])[],
  others: readonly Use[],
  policy: Exclude<SharedPolicy, 'clone'>,
): void {
  if (groups.length === 1 && (others.length === 0 || policy === 'all')) return;
  const paths = groups.flatMap((group) => group.map(({ site }) => site.path));
  fail('E_UNSUPPORTED', {
    message: `The weight of ${paths.join(', ')} is shared: ${groups.length} adapted and ${others.length} other readers`,
    where: weight.label,
    remedy: 'Choose --shared clone, which gives every reader that differs a copy',
  });
}

/** The formula of `target`, which starts with the numbers of `weight`. */
function planTask(
  weight: Value,
  target: Value,
  folded: readonly FoldedSite[],
  dtype: 'float32' | 'float64',
): FoldTask {
  const [first] = folded;
  const formula = new FoldFormula((first as FoldedSite).site, dtype);
  let tensor = formula.input('w', payloadOf(weight)?.dims ?? []);
  for (const { site, slot, stored, layers } of folded) {
    const before = formula.stored(site, new Map([[weight, tensor]]));
    const after = formula.layers(before, layers, site);
    tensor = stored.write(formula.builder.op, after[slot] as Value, tensor);
  }
  const model = formula.finish(tensor);
  const axes = blockAxes(model);
  const blocks = axes?.get('w') === 0 ? axes : undefined;
  if (blocks !== undefined) loosen(model, blocks);
  const sites = folded.map(({ site }) => site.path);
  return { target, sites, formula: model, inputs: formula.inputs, blocks };
}

/** Makes the axes that blocks cut symbolic, so that the formula takes any number of rows. */
function loosen(formula: Model, blocks: BlockAxes): void {
  const symbolic = (type: Value['type'], axis: number) =>
    type?.kind === 'tensor' && type.shape !== null
      ? tensorType(type.dtype, type.shape.with(axis, 'rows'))
      : type;
  for (const input of formula.graph.inputs) {
    const axis = blocks.get(input.name ?? '');
    if (axis !== undefined) input.type = symbolic(input.type, axis);
  }
  // What lies between has those sizes, too, and the file would say otherwise.
  for (const node of formula.graph.nodes())
    for (const value of node.outputs) if (value !== null) value.type = undefined;
  for (const output of formula.graph.outputs) {
    output.type = symbolic(output.type, 0);
    output.value.type = output.type;
  }
}

/** Gives shared weights of the plan their copies. Readers that no adapter concerns keep the old numbers that way. */
export function separateShared(plan: FoldPlan): Pass {
  return {
    name: 'separate-shared-weights',
    summary: 'Copy weights that others read too before a fold changes them',
    *run(model) {
      for (const { of, copy, uses, sites } of plan.copies)
        yield separate(model, of, copy, new Set(uses), sites);
    },
  };
}

function separate(
  model: Model,
  from: Value,
  to: Value,
  uses: ReadonlySet<Use>,
  sites: readonly string[],
): Edit {
  const reason = sites.length === 0 ? 'readers without an adapter' : sites.join(', ');
  return {
    label: `copy of ${from.label} for ${reason}`,
    graph: model.graph,
    addInitializers: [to],
    redirect: [{ from, to, only: (use) => uses.has(use) }],
  };
}

function missing(path: string, sites: ReadonlyMap<string, Site>): never {
  return fail('E_NO_MATCH', {
    message: `The model has no module '${path}', which the adapter was trained on`,
    remedy: didYouMean(
      path,
      [...sites.values()].map((site) => site.path),
    ),
  });
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}
