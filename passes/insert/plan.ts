/** Insertion, planned: which sites each method goes to, with which configuration and which tensors. Reads no weight. */
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import type { DType } from '../../src/types.js';
import { hasAdapterRecord } from '../adapter-record.js';
import { configure } from '../methods/contract/configurable.js';
import {
  type Method,
  type ParamSpec,
  rulesFor,
  type SharedDims,
  siteKindsOf,
  targetKindsOf,
} from '../methods/contract/method.js';
import type { Found, SurveyResult } from '../methods/contract/survey.js';
import type { Preset } from '../presets/preset.js';
import { expandEntries } from '../presets/registry.js';
import { findSites } from '../sites/index.js';
import { dimsOf } from '../sites/kinds/index.js';
import { closed, whyHidden } from '../sites/opened.js';
import type { Site, SiteKind } from '../sites/site.js';
import { modulePath, selectSites, type Targeting } from '../sites/targeting.js';
import type { InsertEntry } from './entry.js';

export type { InsertEntry } from './entry.js';

export interface PlannedEntry {
  readonly method: Method;
  readonly config: Record<string, unknown>;
}

/** A method at a site. */
export interface PlannedSite {
  /** Index of the entry. */
  readonly entry: number;
  readonly site: Site;
  readonly config: Record<string, unknown>;
  /** Of the method's survey, for derived values. */
  readonly arrays?: Found['arrays'];
}

export interface SkippedSite {
  readonly path: string;
  readonly method: string;
  readonly reason: string;
}

export interface InsertPlan {
  readonly entries: readonly PlannedEntry[];
  /** By entry, then in model order. */
  readonly sites: readonly PlannedSite[];
  /** Targeted sites that the method cannot take. */
  readonly skipped: readonly SkippedSite[];
}

export interface PlanInsertOptions {
  /** Methods of one's own, by id. */
  readonly methods?: readonly Method[];
  /** Compositions of one's own, by id. */
  readonly presets?: readonly Preset[];
  /** Module paths by value or node name, for models whose names are lost. */
  readonly paths?: ReadonlyMap<string, string>;
}

/** Throws E_NO_MATCH when a method is left without a site, E_USAGE on a bad configuration, E_UNSUPPORTED on a second insertion. */
export function planInsert(
  model: Model,
  entries: readonly InsertEntry[],
  { methods, presets, paths }: PlanInsertOptions = {},
): InsertPlan {
  if (hasAdapterRecord(model))
    fail('E_UNSUPPORTED', {
      message: 'The model already holds an adapter',
      remedy: 'Insert all methods at once into the base model, or fold the adapter first',
    });
  const found = findSites(model, paths === undefined ? {} : { paths });
  const expanded = expandEntries(entries, { methods, presets });
  const plan: InsertPlan[] = expanded.map((entry, index) => {
    requireKinds(model, found, entry.method);
    const planned = planEntry(found, index, entry.method, entry);
    return { ...planned, skipped: [...planned.skipped, ...unopened(model, entry.method)] };
  });
  return {
    entries: plan.flatMap((part) => part.entries),
    sites: plan.flatMap(({ sites }) => sites),
    skipped: plan.flatMap(({ skipped }) => skipped),
  };
}

/** Kinds of sites that the methods of these entries name. */
export function kindsOf(
  entries: readonly InsertEntry[],
  { methods, presets }: Pick<PlanInsertOptions, 'methods' | 'presets'>,
): SiteKind[] {
  return expandEntries(entries, { methods, presets }).flatMap(({ method }) => siteKindsOf(method));
}

/** Throws E_NO_MATCH where the model has no site of the kinds that targets of the method name. */
function requireKinds(model: Model, found: readonly Site[], method: Method): void {
  const kinds = targetKindsOf(method);
  if (found.some((site) => kinds.includes(site.kind))) return;
  const hidden = whyHidden(model, kinds);
  fail('E_NO_MATCH', {
    message: `${method.id} adapts ${kinds.join(' and ')} sites, and the model has none${hidden === undefined ? '' : `: ${hidden}`}`,
    remedy:
      method.otherwise ??
      'See peft-compile inspect for what the model has; a static or fused export may hide it',
  });
}

/** Operators that stay closed: nothing says which modules are inside, so targets cannot leave them out. */
function unopened(model: Model, method: Method): SkippedSite[] {
  return closed(model, targetKindsOf(method)).map(({ node, reason }) => ({
    path: node.label,
    method: method.id,
    reason: `it cannot be taken apart: ${reason}`,
  }));
}

function planEntry(found: readonly Site[], entry: number, method: Method, given: InsertEntry): InsertPlan {
  const config = configure(method, given.config ?? {});
  const kinds = targetKindsOf(method);
  const offered = found.filter((site) => kinds.includes(site.kind));
  const targeting: Targeting = {
    ...given.targeting,
    targets: given.targeting?.targets ?? (method.defaultTargets as Targeting['targets']),
  };
  const sites: PlannedSite[] = [];
  const skipped: SkippedSite[] = [];
  for (const { site, overrides } of selectSites(offered, targeting, found)) {
    const siteConfig = configure(method, { ...given.config, ...overrides });
    const reason = rulesFor(method, site.kind, site.path).refuses?.(dimsOf(site), siteConfig);
    if (reason === undefined) sites.push({ entry, site, config: siteConfig });
    else skipped.push({ path: site.path, method: method.id, reason });
  }
  const alongside = companions(found, sites, { entry, method, config });
  sites.push(...alongside);
  skipped.push(...absences(alongside, { method, config }));
  return requireSites({ entries: [{ method, config }], sites, skipped });
}

/** Sites that come along with those selected. */
function companions(
  found: readonly Site[],
  selected: readonly PlannedSite[],
  { entry, method, config }: PlannedEntry & { readonly entry: number },
): PlannedSite[] {
  return found
    .filter((site) => {
      const rules = method.sites[site.kind];
      return (
        rules?.alongside !== undefined &&
        selected.some((other) => other.site.kind === rules.alongside) &&
        rules.refuses?.(dimsOf(site), config) === undefined
      );
    })
    .map((site) => ({ entry, site, config }));
}

/** What the model has no site for that a method wanted alongside those selected. */
function absences(alongside: readonly PlannedSite[], { method, config }: PlannedEntry): SkippedSite[] {
  return siteKindsOf(method).flatMap((kind) => {
    const reason = alongside.some(({ site }) => site.kind === kind)
      ? undefined
      : method.sites[kind]?.absent?.(config);
    return reason === undefined ? [] : [{ path: `${kind}s`, method: method.id, reason }];
  });
}

/** Throws E_UNSUPPORTED when every targeted site was skipped. */
function requireSites(plan: InsertPlan): InsertPlan {
  const [first] = plan.skipped;
  if (plan.sites.length === 0 && first !== undefined)
    fail('E_UNSUPPORTED', {
      message: `${first.method} fits none of the targeted modules: ${reasonsOf(plan.skipped)}`,
      where: first.path,
      remedy: 'Choose other targets or another method; see peft-compile inspect',
    });
  return plan;
}

/** The reasons that differ, the first of them; sizes of modules make many. */
function reasonsOf(skipped: readonly SkippedSite[]): string {
  const reasons = [...new Set(skipped.map(({ reason }) => reason))];
  const named = reasons.slice(0, 3).join('; or ');
  return reasons.length > 3 ? `${named}; and ${reasons.length - 3} more` : named;
}

/** The plan with what surveys found, by entry and path of the site. Throws E_UNSUPPORTED when an entry loses all sites. */
export function withSurveys(
  plan: InsertPlan,
  surveys: ReadonlyMap<number, ReadonlyMap<string, SurveyResult>>,
): InsertPlan {
  const sites: PlannedSite[] = [];
  const skipped = [...plan.skipped];
  for (const planned of plan.sites) {
    const { entry, site } = planned;
    const result = surveys.get(entry)?.get(modulePath(site));
    const method = methodAt(plan, entry);
    if (result === undefined) sites.push(planned);
    else if ('skip' in result) skipped.push({ path: site.path, method: method.id, reason: result.skip });
    else {
      const { facts, arrays = {} } = result;
      sites.push({ ...planned, config: configure(method, { ...planned.config, ...facts }), arrays });
    }
  }
  for (const entry of plan.entries.keys())
    requireSites({
      entries: [],
      sites: sites.filter((site) => site.entry === entry),
      skipped: skipped.filter(({ method }) => method === methodAt(plan, entry).id),
    });
  return { ...plan, sites, skipped };
}

export function methodAt(plan: InsertPlan, entry: number): Method {
  return (plan.entries[entry] as PlannedEntry).method;
}

/** A tensor that the plan asks for. */
export interface PlannedParam {
  readonly role: string;
  /** Name in adapter files, unique. */
  readonly key: string;
  readonly spec: ParamSpec;
  readonly dtype: DType;
  /** The site whose stored tensors derived values read: the first that has the parameter. */
  readonly site: Site;
  /** Arrays of the method's survey at that site. */
  readonly arrays: NonNullable<Found['arrays']>;
}

/** Parameters of one method at one module; several calls of the module share them. */
export interface PlannedModule {
  readonly entry: number;
  readonly path: string;
  readonly kind: Site['kind'];
  readonly config: Record<string, unknown>;
  readonly sites: readonly Site[];
  /** By role; parameters that all sites share are among those of each. */
  readonly params: readonly PlannedParam[];
}

/** The modules of a plan with their parameters. */
export function planModules(plan: InsertPlan): PlannedModule[] {
  const keys = new Set<string>();
  const claim = (wanted: string): string => {
    let key = wanted;
    for (let n = 2; keys.has(key); n++) key = `${wanted}.${n}`;
    keys.add(key);
    return key;
  };
  const byModule = new Map<string, PlannedSite[]>();
  for (const planned of plan.sites) {
    const id = `${planned.entry} ${planned.site.kind} ${modulePath(planned.site)}`;
    const calls = byModule.get(id);
    if (calls === undefined) byModule.set(id, [planned]);
    else calls.push(planned);
  }
  const shared = plan.entries.map((entry, index) => sharedParams(plan, entry, index, claim));
  return [...byModule.values()].map((calls) => {
    const [first] = calls as [PlannedSite];
    const { entry, site, config, arrays } = first;
    const method = methodAt(plan, entry);
    const path = modulePath(site);
    const specs = rulesFor(method, site.kind, path).params(dimsOf(site), config);
    const own = Object.entries(specs).map(([role, spec]) =>
      param(role, spec, site, claim(`${path}.${spec.key ?? role}`), arrays),
    );
    return {
      entry,
      path,
      kind: site.kind,
      config,
      sites: calls.map((call) => call.site),
      params: [...own, ...(shared[entry] ?? [])],
    };
  });
}

function sharedParams(
  plan: InsertPlan,
  { method, config }: PlannedEntry,
  index: number,
  claim: (key: string) => string,
): PlannedParam[] {
  const sites = plan.sites.filter(({ entry }) => entry === index).map(({ site }) => site);
  const [first] = sites;
  if (method.shared === undefined || first === undefined) return [];
  const dims = sites.map((site) => ({ ...dimsOf(site), kind: site.kind })) as unknown as SharedDims[];
  return Object.entries(method.shared(dims, config)).map(([role, spec]) =>
    param(role, spec, first, claim(spec.key ?? `${method.id}.${role}`)),
  );
}

function param(
  role: string,
  spec: ParamSpec,
  site: Site,
  key: string,
  arrays: PlannedParam['arrays'] = {},
): PlannedParam {
  return { role, key, spec, dtype: spec.dtype ?? site.dtype, site, arrays };
}
