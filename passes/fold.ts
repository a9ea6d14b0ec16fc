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
import type { Edit } from './edit.js';
import { rulesOf } from './insert.js';
import type { Fold, Method } from './methods/method.js';
import { resolveMethod } from './methods/registry.js';
import type { Pass } from './pass.js';
import { findSites } from './sites/index.js';
import type { Site } from './sites/site.js';
import { fromMatrix, storedLayout, toMatrix } from './weight-form.js';

/** Opset of fold formulas: old enough for every runtime, new enough for one form of every op. */
const FORMULA_OPSET = 18;
const FORMULA_IR = 8;

/** What happens to a weight that others read too: copy it for the adapted use, change it for all, or refuse. */
export const SHARED_POLICIES = ['clone', 'all', 'error'] as const;
export type SharedPolicy = (typeof SHARED_POLICIES)[number];

/** One stored tensor and the formula of its new value. */
export interface FoldTask {
  readonly target: Value;
  /** Module paths folded into it, in order. */
  readonly sites: readonly string[];
  /** Inputs: `w` (the stored tensor) and the parameters; output: `folded`, of the stored shape. All `computeDtype`. */
  readonly formula: Model;
  /** Formula input → adapter key. */
  readonly params: ReadonlyMap<string, AdapterParam>;
  /** Other readers of the tensor, which keep the old numbers when it is cloned. */
  readonly otherReaders: readonly Use[];
}

export interface FoldPlan {
  readonly tasks: readonly FoldTask[];
  /** Sites that keep their adapter's effect out of the merged model, with the method's reason. */
  readonly impossible: readonly { readonly path: string; readonly reason: string }[];
}

export interface PlanFoldOptions {
  /** Dtype formulas are evaluated in; default float32. */
  readonly computeDtype?: 'float32' | 'float64';
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
    const { fold } = rulesOf<{ readonly fold: Fold<Record<string, unknown>, string> }>(
      method.sites[site.kind],
      method,
      site,
    );
    if (typeof fold !== 'function') impossible.push({ path: site.path, reason: fold.impossible });
    else if (site.weight.storage !== 'dense') impossible.push({ path: site.path, reason: quantised(site) });
    else push(byTensor, site.weight.value, { site, recorded, fold });
  }
  const tasks = [...byTensor].map(([target, folded]) =>
    planTask(target, folded, adaptedReaders(folded, sites.values()), options.computeDtype ?? 'float32'),
  );
  return { tasks, impossible };
}

interface FoldedSite {
  readonly site: Site;
  readonly recorded: AdapterSite;
  readonly fold: Exclude<Fold<Record<string, unknown>, string>, { readonly impossible: string }>;
}

function planTask(
  target: Value,
  folded: readonly FoldedSite[],
  adaptedUses: ReadonlySet<Node>,
  dtype: 'float32' | 'float64',
): FoldTask {
  const formula = new Model(new Graph());
  formula.irVersion = FORMULA_IR;
  formula.opsets.set('', FORMULA_OPSET);
  const builder = new Builder(formula);
  const input = (name: string, shape: readonly number[]) =>
    formula.graph.addInput(new Value({ name, type: tensorType(dtype, shape) }));
  const params = new Map<string, AdapterParam>();
  let tensor = input('w', target.tensor?.dims ?? []);
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
  return {
    target,
    sites: folded.map(({ site }) => site.path),
    formula,
    params,
    otherReaders: [...target.uses].filter((use) => use.kind === 'output' || !adaptedUses.has(use.node)),
  };
}

/** Readers of a site's tensor that want the folded numbers: the first node on the way to the op, at every call. */
function adaptedReaders(folded: readonly FoldedSite[], sites: Iterable<Site>): Set<Node> {
  const modules = new Set(folded.map(({ site }) => site.path));
  const nodes = new Set<Node>();
  for (const site of sites)
    if (modules.has(site.callOf ?? site.path)) nodes.add(site.weight.chain[0] ?? site.node);
  return nodes;
}

/**
 * Gives every shared tensor of the plan a copy of its own for the adapted use. The copy takes the numbers the fold will
 * change; other readers keep the original.
 */
export function separateShared(plan: FoldPlan): Pass {
  return {
    name: 'separate-shared-weights',
    summary: 'Copy weights that others read too before a fold changes them',
    *run(model) {
      for (const { target, otherReaders, sites } of plan.tasks) {
        if (otherReaders.length > 0) yield separate(model, target, otherReaders, sites);
      }
    },
  };
}

/** The others move to the copy, so that the folded tensor stays the value that the plan names. */
function separate(model: Model, target: Value, others: readonly Use[], sites: readonly string[]): Edit {
  const moved = new Set(others);
  const copy = new Value({ hint: `${target.label}_base`, ...typeAndTensor(target) });
  return {
    label: `copy of ${target.label} for the readers besides ${sites.join(', ')}`,
    graph: model.graph,
    addInitializers: [copy],
    redirect: [{ from: target, to: copy, only: (use) => moved.has(use) }],
  };
}

function typeAndTensor({ type, tensor }: Value): {
  type?: NonNullable<Value['type']>;
  tensor?: NonNullable<Value['tensor']>;
} {
  return { ...(type === undefined ? {} : { type }), ...(tensor === undefined ? {} : { tensor }) };
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
