/**
 * Insertion: wires methods into every selected site and leaves a record of it in the model's metadata. The pass knows
 * sites and formulas, not methods: what is replaced is what the formulas return.
 */
import { fail } from '../../src/errors.js';
import { type Node, type Use, Value, walkNodes } from '../../src/graph.js';
import { initTensor } from '../../src/initializer.js';
import type { Model } from '../../src/model.js';
import { didYouMean } from '../../src/nearest.js';
import { sortTopologically } from '../../src/order.js';
import { elementsOf, type Tensor } from '../../src/tensor.js';
import { countOf, isFloat, tensorType } from '../../src/types.js';
import {
  type AdapterParam,
  type AdapterRecord,
  allParams,
  jsonOf,
  methodsOf,
  trainableParams,
  writeAdapterRecord,
} from '../adapter-record.js';
import { constants } from '../inspect/parameters.js';
import { isDerived } from '../methods/contract/derived.js';
import { hasSayInTraining, type Method } from '../methods/contract/method.js';
import { resolveMethod } from '../methods/registry.js';
import type { Pass } from '../pass.js';
import type { Preset } from '../presets/preset.js';
import { type RunOptions, runPasses } from '../runner.js';
import { findSites } from '../sites/index.js';
import { storedOf } from '../sites/kinds/index.js';
import { formOf } from '../sites/module-form.js';
import { hiding, opened, openSites } from '../sites/opened.js';
import type { Site } from '../sites/site.js';
import { modulePath } from '../sites/targeting.js';
import { claimName, valueNames } from '../value-names.js';
import { planCollapse, type RecordedModule } from './collapse.js';
import {
  type InsertEntry,
  type InsertPlan,
  kindsOf,
  methodAt,
  type PlannedParam,
  planInsert,
  planModules,
  type SkippedSite,
} from './plan.js';
import { type Layer, wire } from './wiring.js';

export interface InsertSettings {
  /** Seed of the initial values; same seed, same bytes. Default 0. */
  readonly seed?: number;
  /** Digest of the base model's weights, for the record: a fold into other weights is then refused. */
  readonly baseDigest?: string;
  /** Methods of one's own, by id. */
  readonly methods?: readonly Method[];
  /** Compositions of one's own, by id. */
  readonly presets?: readonly Preset[];
  /** Module paths by value or node name, for models whose names are lost. */
  readonly paths?: ReadonlyMap<string, string>;
  readonly run?: RunOptions;
}

/** One method, or several that stack. */
export type InsertOptions = InsertSettings & (InsertEntry | { readonly entries: readonly InsertEntry[] });

export interface InsertReport {
  readonly record: AdapterRecord;
  /** Elements of trainable tensors, and of all floating-point weights of the base. */
  readonly trainable: number;
  readonly base: number;
  /** Sites whose base weight other consumers read too: folding copies that weight for the adapted use. */
  readonly shared: readonly { readonly path: string; readonly weight: string; readonly consumers: number }[];
  /** Targeted sites that a method cannot take. */
  readonly skipped: readonly SkippedSite[];
  /** Fused operators that were taken apart because a method acts inside them. */
  readonly opened: readonly string[];
}

/** The methods of `options`. */
export function entriesOf(options: InsertOptions): readonly InsertEntry[] {
  return 'entries' in options ? options.entries : [options];
}

/**
 * Inserts methods into a model, in place; its nodes are put in order of execution first, where they are not, and fused
 * operators are taken apart where a method acts on sites inside them (a prefix in fused attention). For methods
 * whose initial values come from the base's weights use the library's `insert`, which computes them. Throws E_NO_MATCH
 * when nothing is selected, E_USAGE on a bad configuration.
 */
export function insert(model: Model, options: InsertOptions): InsertReport {
  sortTopologically(model.graph);
  const opened = openFor(model, options);
  const plan = planInsert(model, entriesOf(options), options);
  return { ...applyInsert(model, plan, new Map(), options), opened };
}

/** Whether `openFor` may change the model. */
export function mayOpen(model: Model, options: InsertOptions): boolean {
  return hiding(model, kindsOf(entriesOf(options), options)).length > 0;
}

/**
 * Takes apart the fused operators that hide the sites of an insertion, in place, and returns them as people know them. What
 * the insertion is refused for is found before anything changes.
 */
export function openFor(model: Model, options: InsertOptions): string[] {
  const entries = entriesOf(options);
  const kinds = kindsOf(entries, options);
  if (hiding(model, kinds).length === 0) return [];
  const { sites } = planInsert(opened(model, kinds), entries, options);
  return openSites(
    model,
    sites.map(({ site }) => site.kind),
  );
}

/** Carries out a plan made on the same model. `derived` holds the values of derived parameters by key. */
export function applyInsert(
  model: Model,
  plan: InsertPlan,
  derived: ReadonlyMap<string, Tensor>,
  { seed = 0, baseDigest, run = {} }: InsertSettings,
): InsertReport {
  const base = countWeights(model);
  const taken = valueNames(model);
  const params = new Map<string, { readonly value: Value; readonly recorded: AdapterParam }>();
  const baseNames = valueNames(model);
  const recorded: RecordedModule[] = [];
  const placements: Placement[] = [];
  for (const module of planModules(plan)) {
    const { entry, path, kind, config, sites, params: planned } = module;
    const method = methodAt(plan, entry);
    const recordedParams: Record<string, AdapterParam> = {};
    const values: Record<string, Value> = {};
    for (const param of planned) {
      let made = params.get(param.key);
      if (made === undefined) {
        made = makeParam(param, taken, seed, derived);
        params.set(param.key, made);
      }
      recordedParams[param.role] = made.recorded;
      values[param.role] = made.value;
    }
    const [first] = sites;
    const site = {
      entry,
      path,
      kind,
      config: jsonOf(config),
      ...formOf(first),
      params: recordedParams,
    };
    recorded.push({ module, method, site });
    for (const site of sites) placements.push({ entry, site, layer: { method, config, params: values } });
  }
  const { sites, formulas } = planCollapse(recorded, baseNames);
  const record: AdapterRecord = {
    version: 2,
    entries: plan.entries.map(({ method, config }) => ({
      method: method.id,
      config: jsonOf(config),
      ...(hasSayInTraining(method) ? { trains: true } : {}),
    })),
    seed,
    ...(baseDigest === undefined ? {} : { base: baseDigest }),
    sites: [...sites],
    ...(formulas === undefined ? {} : { formulas }),
  };
  // Counted before methods that read the base's numbers become readers of their own.
  const shared = sharedWeights(plan.sites.map(({ site }) => site));
  runPasses(model, [placePass(`insert ${methodsOf(record)}`, placements)], run);
  writeAdapterRecord(model, record);
  return {
    record,
    trainable: countElements(trainableParams(record)),
    base,
    shared,
    skipped: plan.skipped,
    opened: [],
  };
}

export interface AttachOptions {
  readonly methods?: readonly Method[];
  readonly paths?: ReadonlyMap<string, string>;
  readonly run?: RunOptions;
}

/**
 * Inserts a trained adapter into its base model, in place: the unfolded model. Fused operators that hide its sites are
 * taken apart. `tensors` holds the adapter's values by key. Throws E_NO_MATCH when the model lacks a module or `tensors` lacks a key.
 */
export function attachAdapter(
  model: Model,
  record: AdapterRecord,
  tensors: ReadonlyMap<string, Tensor>,
  { methods, paths, run = {} }: AttachOptions = {},
): void {
  sortTopologically(model.graph);
  const values = new Map<string, Value>();
  for (const { key, name, shape, dtype } of allParams(record)) {
    const tensor =
      tensors.get(key) ??
      fail('E_INVALID_DATA', {
        message: `The adapter file lacks tensor '${key}'`,
        remedy: 'Use the file that training wrote',
      });
    values.set(key, new Value({ name, type: tensorType(dtype, shape), tensor }));
  }
  openSites(
    model,
    record.sites.map(({ kind }) => kind),
  );
  const sites = findSites(model, paths === undefined ? {} : { paths });
  const placements = record.sites.flatMap(({ entry, path, kind, config, params }): Placement[] => {
    const calls = sites.filter((site) => site.kind === kind && modulePath(site) === path);
    if (calls.length === 0)
      fail('E_NO_MATCH', {
        message: `The model has no module '${path}', which the adapter was trained on`,
        remedy: didYouMean(
          path,
          sites.filter((site) => site.kind === kind).map((site) => site.path),
        ),
      });
    const id = record.entries[entry]?.method ?? '';
    const layer: Layer = {
      method: resolveMethod(id, methods),
      config,
      params: Object.fromEntries(
        Object.entries(params).map(([role, { key }]) => [role, values.get(key) as Value]),
      ),
    };
    return calls.map((site) => ({ entry, site, layer }));
  });
  runPasses(model, [placePass(`attach ${methodsOf(record)}`, placements)], run);
  writeAdapterRecord(model, record);
}

/** A method ready to be wired at a site. */
export interface Placement {
  readonly entry: number;
  readonly site: Site;
  readonly layer: Layer;
}

/** The insertion as a pass, for pipelines of one's own. Placements at one site stack in the order of their entries. */
export function placePass(name: string, placements: readonly Placement[]): Pass {
  return {
    name,
    summary: 'Wire methods into their sites',
    *run(model) {
      // In the main graph, where nested graphs and further calls of a module see them.
      const values = new Set(placements.flatMap(({ layer }) => Object.values(layer.params)));
      const stored = [...values].filter(({ tensor }) => tensor !== undefined);
      yield { label: 'parameters', graph: model.graph, addInitializers: stored };
      const stacks = new Map<Site, Layer[]>();
      for (const { site, layer } of [...placements].sort((a, b) => a.entry - b.entry)) {
        const stack = stacks.get(site);
        if (stack === undefined) stacks.set(site, [layer]);
        else stack.push(layer);
      }
      // Last sites first: an output that feeds another site directly then takes that site's branch along when it is redirected.
      const order = new Map([...walkNodes(model.graph)].map((node, index) => [node, index]));
      const last = ([{ node }]: [Site, Layer[]]) => order.get(node) ?? 0;
      const inOrder = [...stacks].sort((a, b) => last(a) - last(b));
      for (const [site, layers] of inOrder.reverse()) yield* wire(model, site, layers);
    },
  };
}

/** A parameter of the method with the initial value of the seed or the one derived for it. */
function makeParam(
  { key, spec, dtype }: PlannedParam,
  taken: Set<string>,
  seed: number,
  derived: ReadonlyMap<string, Tensor>,
): { readonly value: Value; readonly recorded: AdapterParam } {
  const name = claimName(key, taken);
  const { shape, init } = spec;
  const tensor = isDerived(init)
    ? (derived.get(key) ??
      fail('E_USAGE', {
        message: `The initial value of '${key}' comes from the base's weights`,
        remedy: "Call the library's insert, which computes it, instead of the pass",
      }))
    : initTensor(init, dtype, shape, seed, key);
  return {
    value: new Value({ name, type: tensorType(dtype, shape), tensor }),
    recorded: {
      key,
      name,
      shape: [...shape],
      dtype,
      trainable: spec.trainable ?? true,
      group: spec.group ?? 'default',
      lrScale: spec.lrScale ?? 1,
      weightDecay: spec.weightDecay ?? true,
    },
  };
}

function countElements(params: readonly AdapterParam[]): number {
  return params.reduce((sum, { shape }) => sum + countOf(shape), 0);
}

/** Elements of all floating-point constants of rank 1 and more: what the share of trainable weights divides by. */
export function countWeights(model: Model): number {
  let count = 0;
  for (const [, tensor] of constants(model))
    if (isFloat(tensor.dtype) && tensor.dims.length > 0) count += elementsOf(tensor);
  return count;
}

/** Calls of one module (both branches of an If, a module used twice) share its weight and are no strangers. */
function sharedWeights(sites: readonly Site[]): InsertReport['shared'] {
  const own = new Map<string, Set<Node | undefined>>();
  const idOf = (site: Site) => `${site.kind} ${modulePath(site)}`;
  for (const site of sites) {
    const readers = own.get(idOf(site)) ?? new Set();
    for (const { reader } of Object.values(storedOf(site))) readers.add(reader);
    own.set(idOf(site), readers);
  }
  return sites.flatMap((site) => {
    const readers = own.get(idOf(site));
    const stranger = (use: Use) => use.kind === 'output' || readers?.has(use.node) !== true;
    return Object.values(storedOf(site))
      .filter(({ value }) => site.callOf === undefined && [...value.uses].some(stranger))
      .map(({ value }) => ({ path: site.path, weight: value.label, consumers: value.uses.size }))
      .slice(0, 1);
  });
}
