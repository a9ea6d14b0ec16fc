/**
 * Collapse, planned: what remains of training-only structure, as formulas that the adapter's record carries. They are
 * written while the base is at hand, at insertion; `runtime/collapse.ts` evaluates them when an adapter is saved.
 */
import type { Value } from '../../src/graph.js';
import { printModel } from '../../src/text/index.js';
import {
  type AdapterCollapse,
  type AdapterParam,
  type AdapterSite,
  type CollapsedParam,
  jsonOf,
} from '../adapter-record.js';
import { FoldFormula } from '../fold/formula.js';
import { configure } from '../methods/contract/configurable.js';
import {
  type AnyCollapse,
  type Method,
  type ParamSpec,
  rulesFor,
  type SharedDims,
} from '../methods/contract/method.js';
import { dimsOf } from '../sites/kinds/index.js';
import type { Site } from '../sites/site.js';
import { claimName } from '../value-names.js';
import type { PlannedModule } from './plan.js';

/** A module of the plan with the method at it and what the record says about it. */
export interface RecordedModule {
  readonly module: PlannedModule;
  readonly method: Method;
  readonly site: AdapterSite;
}

export interface CollapsePlan {
  /** The recorded sites, those that collapse with their formulas. */
  readonly sites: readonly AdapterSite[];
  /** Texts of the formulas, each once; absent where nothing collapses. */
  readonly formulas?: string[];
}

/** `taken` holds the names of the base model. */
export function planCollapse(modules: readonly RecordedModule[], taken: ReadonlySet<string>): CollapsePlan {
  const planned = modules.map((recorded) => ({ ...recorded, collapse: collapseOf(recorded) }));
  if (planned.every(({ collapse }) => collapse === undefined))
    return { sites: modules.map(({ site }) => site) };
  const planner = new Planner(taken);
  for (const { site, collapse } of planned) if (collapse === undefined) planner.keep(site);
  const shared = sharedSpecs(planned);
  const sites = planned.map(({ module, method, site, collapse }) =>
    collapse === undefined
      ? site
      : {
          ...site,
          collapse: planner.add(module, site, collapse, shared.get(sharedId(method, site, collapse))),
        },
  );
  return { sites, formulas: [...planner.formulas.keys()] };
}

/** The collapse in force at a module; undefined where its configuration has none. */
function collapseOf({ module, method }: RecordedModule): AnyCollapse | undefined {
  const { collapse } = rulesFor(method, module.kind, module.path);
  return collapse?.when?.(module.config) === false ? undefined : collapse;
}

function sharedId(method: Method, { entry }: AdapterSite, { method: target }: AnyCollapse): string {
  return `${entry} ${method.id} ${target.id}`;
}

/** Parameters that the simpler method shares between the sites that collapse to it. */
function sharedSpecs(
  planned: readonly (RecordedModule & { readonly collapse: AnyCollapse | undefined })[],
): Map<string, Readonly<Record<string, ParamSpec>>> {
  const groups = new Map<string, { collapse: AnyCollapse; config: Record<string, unknown>; sites: Site[] }>();
  for (const { module, method, site, collapse } of planned) {
    if (collapse?.method.shared === undefined) continue;
    const first = module.sites[0] as Site;
    const id = sharedId(method, site, collapse);
    const group = groups.get(id) ?? { collapse, config: simpler(module, first, collapse), sites: [] };
    group.sites.push(...module.sites);
    groups.set(id, group);
  }
  return new Map(
    [...groups].map(([id, { collapse, config, sites }]) => {
      const dims = sites.map((site) => ({ ...dimsOf(site), kind: site.kind })) as unknown as SharedDims[];
      return [id, collapse.method.shared?.(dims, config) ?? {}];
    }),
  );
}

/** Configuration of the simpler method at a site. */
function simpler(module: PlannedModule, site: Site, collapse: AnyCollapse): Record<string, unknown> {
  return configure(collapse.method, collapse.config(module.config, dimsOf(site)));
}

class Planner {
  readonly formulas = new Map<string, number>();
  readonly #names: Set<string>;
  readonly #keys = new Set<string>();
  readonly #shared = new Map<ParamSpec, AdapterParam>();

  constructor(taken: ReadonlySet<string>) {
    this.#names = new Set(taken);
  }

  /** Parameters of a site that stays as it is keep their keys and names. */
  keep({ params }: AdapterSite): void {
    for (const { key, name } of Object.values(params)) {
      this.#keys.add(key);
      this.#names.add(name);
    }
  }

  add(
    module: PlannedModule,
    recorded: AdapterSite,
    collapse: AnyCollapse,
    shared: Readonly<Record<string, ParamSpec>> = {},
  ): AdapterCollapse {
    const site = module.sites[0] as Site;
    const config = simpler(module, site, collapse);
    const own = rulesFor(collapse.method, site.kind, site.path).params(dimsOf(site), config);
    const params: Record<string, CollapsedParam> = {};
    const formula = (role: string) => this.#formula(module, recorded, collapse, role, site);
    for (const [role, spec] of Object.entries(own))
      params[role] = { ...this.#param(`${module.path}.${spec.key ?? role}`, spec, site), ...formula(role) };
    for (const [role, spec] of Object.entries(shared)) {
      const known =
        this.#shared.get(spec) ?? this.#param(spec.key ?? `${collapse.method.id}.${role}`, spec, site);
      this.#shared.set(spec, known);
      params[role] = { ...known, ...formula(role) };
    }
    return { method: collapse.method.id, config: jsonOf(config), params };
  }

  #param(wanted: string, spec: ParamSpec, site: Site): AdapterParam {
    let key = wanted;
    for (let n = 2; this.#keys.has(key); n++) key = `${wanted}.${n}`;
    this.#keys.add(key);
    return {
      key,
      name: claimName(key, this.#names),
      shape: [...spec.shape],
      dtype: spec.dtype ?? site.dtype,
      trainable: spec.trainable ?? true,
      group: spec.group ?? 'default',
      lrScale: spec.lrScale ?? 1,
      weightDecay: spec.weightDecay ?? true,
    };
  }

  /** The formula of one parameter: a model of its own, since its inputs may be large and its siblings need others. */
  #formula(
    module: PlannedModule,
    recorded: AdapterSite,
    collapse: AnyCollapse,
    role: string,
    site: Site,
  ): Pick<CollapsedParam, 'formula' | 'inputs'> {
    const formula = new FoldFormula(site, 'float32');
    const { op } = formula.builder;
    const values = collapse.values(
      op,
      formula.stored(),
      formula.params(recorded),
      module.config,
      dimsOf(site),
    );
    const output = values[role] as Value;
    const model = formula.finish(output.producer === undefined ? op.Identity(output) : output);
    const text = printModel(model, { payload: () => true });
    const index = this.formulas.get(text) ?? this.formulas.size;
    this.formulas.set(text, index);
    const inputs: CollapsedParam['inputs'] = {};
    for (const [name, source] of formula.inputs)
      inputs[name] =
        'param' in source ? { param: source.param.key } : { base: pinned(source.base, this.#names) };
    return { formula: index, inputs };
  }
}

/** The name by which a tensor of the base is found again. */
function pinned(value: Value, taken: Set<string>): string {
  value.name ??= claimName(value.hint, taken);
  return value.name;
}
