/**
 * Folding, planned: which stored tensors change, by which formula, which are shared, and what cannot fold and why. The
 * plan is a description; `runtime/fold` evaluates its formulas and nothing here reads a weight.
 */
import { fail } from '../src/errors.js';
import { Graph, type Node, type Use, Value } from '../src/graph.js';
import { Model } from '../src/model.js';
import { didYouMean } from '../src/nearest.js';
import { Builder } from '../src/ops/builder.js';
import { tensorType } from '../src/types.js';
import type { AdapterParam, AdapterRecord, AdapterSite } from './adapter-record.js';
import { type BlockAxes, blockAxes } from './blocks.js';
import type { Edit } from './edit.js';
import { type Fold, type Method, rulesFor } from './methods/method.js';
import { resolveMethod } from './methods/registry.js';
import type { Pass } from './pass.js';
import { findSites } from './sites/index.js';
import { payloadOf } from './sites/payload.js';
import type { Site } from './sites/site.js';
import { claimName, valueNames } from './value-names.js';
import { fromMatrix, storedLayout, toMatrix } from './weight-form.js';

/** Opset of fold formulas: old enough for every runtime, new enough for one form of every op. */
const FORMULA_OPSET = 18;
const FORMULA_IR = 8;

/** What happens to a weight that others read too: copy it for the adapted use, change it for all, or refuse. */
export const SHARED_POLICIES = ['clone', 'all', 'error'] as const;
export type SharedPolicy = (typeof SHARED_POLICIES)[number];

/** One stored tensor and the formula of its new value. */
export interface FoldTask {
  /** The initializer whose numbers change: one of the model, or the copy of one (see `FoldPlan.copies`). */
  readonly target: Value;
  /** Module paths folded into it, in order. */
  readonly sites: readonly string[];
  /** Inputs: `w` (the stored tensor) and the parameters; output: `folded`, of the stored shape. All `computeDtype`. */
  readonly formula: Model;
  /** Formula input → adapter parameter. */
  readonly params: ReadonlyMap<string, AdapterParam>;
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
  /** Sites that keep their adapter's effect out of the merged model, with the method's reason. */
  readonly impossible: readonly { readonly path: string; readonly reason: string }[];
}

export interface PlanFoldOptions {
  /** Dtype formulas are evaluated in; default float32. */
  readonly computeDtype?: 'float32' | 'float64';
  /** Default `clone`. */
  readonly shared?: SharedPolicy;
  readonly method?: Method;
  readonly paths?: ReadonlyMap<string, string>;
}

/** Plans the fold of an adapter into a base model. Throws E_NO_MATCH when a module of the adapter is not in the model. */
export function planFold(base: Model, record: AdapterRecord, options: PlanFoldOptions = {}): FoldPlan {
  const method = resolveMethod(options.method ?? record.method);
  const sites = new Map(
    findSites(base, options.paths === undefined ? {} : { paths: options.paths }).map((s) => [s.path, s]),
  );
  const impossible: { path: string; reason: string }[] = [];
  const byTensor = new Map<Value, FoldedSite[]>();
  for (const recorded of record.sites) {
    const site = sites.get(recorded.path) ?? missing(recorded.path, sites);
    const { fold } = rulesFor(method, site.kind, site.path);
    if (typeof fold !== 'function') impossible.push({ path: site.path, reason: fold.impossible });
    else if (site.weight.storage !== 'dense') impossible.push({ path: site.path, reason: quantised(site) });
    else push(byTensor, site.weight.value, { site, recorded, fold });
  }
  const planner = new Planner(valueNames(base), [...sites.values()], options);
  for (const [weight, folded] of byTensor) planner.add(weight, folded);
  return { tasks: planner.tasks, copies: planner.copies, impossible };
}

type FoldFormula = Exclude<Fold<Record<string, unknown>, string>, { readonly impossible: string }>;

interface FoldedSite {
  readonly site: Site;
  readonly recorded: AdapterSite;
  readonly fold: FoldFormula;
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
      const target = index === 0 ? weight : this.#copy(weight, `${paths[0]}.weight`, uses, paths);
      this.tasks.push(planTask(target, group, this.options.computeDtype ?? 'float32'));
    });
  }

  /** Readers of a weight that want the folded numbers: the first node on the way to the op, at every call. */
  #uses(weight: Value, group: readonly FoldedSite[]): Use[] {
    const modules = new Set(group.map(({ site }) => site.path));
    const nodes = new Set<Node>();
    for (const site of this.sites)
      if (modules.has(site.callOf ?? site.path)) nodes.add(site.weight.chain[0] ?? site.node);
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
    const group = groups.find((members) => members.every((member) => disjoint(member.site, entry.site)));
    if (group === undefined) groups.push([entry]);
    else group.push(entry);
  }
  return groups;
}

function disjoint(a: Site, b: Site): boolean {
  const [p, q] = [a.weight.columns, b.weight.columns];
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

function planTask(target: Value, folded: readonly FoldedSite[], dtype: 'float32' | 'float64'): FoldTask {
  const formula = new Model(new Graph());
  formula.irVersion = FORMULA_IR;
  formula.opsets.set('', FORMULA_OPSET);
  const builder = new Builder(formula);
  const input = (name: string, shape: readonly number[]) =>
    formula.graph.addInput(new Value({ name, type: tensorType(dtype, shape) }));
  const params = new Map<string, AdapterParam>();
  let tensor = input('w', payloadOf(target)?.dims ?? []);
  folded.forEach(({ site, recorded, fold }, index) => {
    const values: Record<string, Value> = {};
    for (const [role, param] of Object.entries(recorded.params)) {
      const name = `${role}_${index}`;
      values[role] = input(name, param.shape);
      params.set(name, param);
    }
    const layout = storedLayout(site);
    const { w } = fold(builder.op, { w: toMatrix(builder.op, tensor, layout) }, values, recorded.config);
    tensor = fromMatrix(builder.op, w, tensor, layout);
  });
  for (const value of builder.initializers) formula.graph.addInitializer(value);
  for (const node of builder.nodes) formula.graph.append(node);
  formula.graph.addOutput('folded', tensor);
  const axes = blockAxes(formula);
  const blocks = axes?.get('w') === 0 ? axes : undefined;
  if (blocks !== undefined) loosen(formula, blocks);
  return { target, sites: folded.map(({ site }) => site.path), formula, params, blocks };
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
  for (const output of formula.graph.outputs) output.type = symbolic(output.type, 0);
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

function quantised(site: Site): string {
  return `the weight is stored ${site.weight.storage}; keep the adapter as a float branch or dequantise the model first`;
}

function missing(path: string, sites: ReadonlyMap<string, Site>): never {
  return fail('E_NO_MATCH', {
    message: `The model has no module '${path}', which the adapter was trained on`,
    remedy: didYouMean(path, [...sites.keys()]),
  });
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}
