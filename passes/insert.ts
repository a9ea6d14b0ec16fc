/**
 * Insertion: wires a method into every selected site and leaves a record of it in the model's metadata. The pass knows
 * sites and formulas, not methods: what is replaced (the output or the weight) is what the formula returns.
 */
import { fail } from '../src/errors.js';
import { Value } from '../src/graph.js';
import { initTensor } from '../src/initializer.js';
import type { Model } from '../src/model.js';
import { didYouMean } from '../src/nearest.js';
import { sortTopologically } from '../src/order.js';
import { elementsOf, type Tensor } from '../src/tensor.js';
import { type DType, isFloat, tensorType } from '../src/types.js';
import {
  type AdapterParam,
  type AdapterRecord,
  type AdapterSite,
  hasAdapterRecord,
  writeAdapterRecord,
} from './adapter-record.js';
import { constants } from './inspect/parameters.js';
import { configureMethod, type Method, type ParamSpec, rulesFor, siteKindsOf } from './methods/method.js';
import { resolveMethod } from './methods/registry.js';
import type { Pass } from './pass.js';
import { type RunOptions, runPasses } from './runner.js';
import { findSites } from './sites/index.js';
import type { Site } from './sites/site.js';
import { type SelectedSite, selectSites, type Targeting } from './sites/targeting.js';
import { dimsOf } from './sites/views.js';
import { claimName, valueNames } from './value-names.js';
import { wire } from './wiring.js';

export interface InsertOptions {
  /** A shipped method's id, or a method of one's own. */
  readonly method: Method | string;
  /** The method's configuration; defaults where absent. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Which sites; see `passes/sites/targeting.ts`. */
  readonly targeting: Targeting;
  /** Seed of the initial values; same seed, same bytes. Default 0. */
  readonly seed?: number;
  /** Digest of the base model's weights, for the record: a fold into other weights is then refused. */
  readonly baseDigest?: string;
  /** Module paths by value or node name, for models whose names are lost. */
  readonly paths?: ReadonlyMap<string, string>;
  readonly run?: RunOptions;
}

export interface InsertReport {
  readonly record: AdapterRecord;
  /** Elements of trainable tensors, and of all floating-point weights of the base. */
  readonly trainable: number;
  readonly base: number;
  /** Sites whose base weight other consumers read too: folding copies that weight for the adapted use. */
  readonly shared: readonly { readonly path: string; readonly weight: string; readonly consumers: number }[];
}

/**
 * Inserts a method into a model, in place; its nodes are put in order of execution first, where they are not. Throws E_NO_MATCH when nothing is selected, E_USAGE on a bad
 * configuration.
 */
export function insert(model: Model, options: InsertOptions): InsertReport {
  const method = resolveMethod(options.method);
  if (hasAdapterRecord(model))
    fail('E_UNSUPPORTED', {
      message: 'The model already holds an adapter',
      remedy: 'Insert into the base model, or fold the adapter first',
    });
  sortTopologically(model.graph);
  const base = countWeights(model);
  const config = configureMethod(method, options.config ?? {});
  const sites = findSites(model, options.paths === undefined ? {} : { paths: options.paths });
  const kinds = siteKindsOf(method);
  const selected = selectSites(
    sites.filter((site) => kinds.includes(site.kind)),
    options.targeting,
  );
  const recorded: AdapterSite[] = [];
  const seeded = seededValues(options.seed ?? 0);
  runPasses(
    model,
    [insertPass(method, config, selected, seeded, (site) => recorded.push(site))],
    options.run ?? {},
  );
  const record: AdapterRecord = {
    version: 1,
    method: method.id,
    config: jsonOf(config),
    seed: options.seed ?? 0,
    ...(options.baseDigest === undefined ? {} : { base: options.baseDigest }),
    sites: recorded,
  };
  writeAdapterRecord(model, record);
  let trainable = 0;
  for (const site of recorded)
    for (const param of Object.values(site.params))
      if (param.trainable) trainable += param.shape.reduce((product, dim) => product * dim, 1);
  return { record, trainable, base, shared: sharedWeights(selected) };
}

/**
 * Inserts a trained adapter into its base model, in place: the unfolded model. `tensors` holds the adapter's values by
 * key. Throws E_NO_MATCH when the model lacks a module or `tensors` lacks a key.
 */
export function attachAdapter(
  model: Model,
  record: AdapterRecord,
  tensors: ReadonlyMap<string, Tensor>,
  options: {
    readonly method?: Method;
    readonly paths?: ReadonlyMap<string, string>;
    readonly run?: RunOptions;
  } = {},
): void {
  const method = resolveMethod(options.method ?? record.method);
  sortTopologically(model.graph);
  const configs = new Map(record.sites.map(({ path, config }) => [path, config]));
  const selected: SelectedSite[] = [];
  const left = new Set(configs.keys());
  for (const site of findSites(model, options.paths === undefined ? {} : { paths: options.paths })) {
    const config = configs.get(site.callOf ?? site.path);
    if (config === undefined) continue;
    left.delete(site.path);
    selected.push({ site, overrides: config });
  }
  for (const path of left)
    fail('E_NO_MATCH', {
      message: `The model has no module '${path}', which the adapter was trained on`,
      remedy: didYouMean(
        path,
        selected.map(({ site }) => site.path),
      ),
    });
  const trained: ParamValues = (key) =>
    tensors.get(key) ??
    fail('E_INVALID_DATA', {
      message: `The adapter file lacks tensor '${key}'`,
      remedy: 'Use the file that training wrote',
    });
  runPasses(model, [insertPass(method, {}, selected, trained, () => {})], options.run ?? {});
  writeAdapterRecord(model, record);
}

/** Values of a parameter of the method at a site. */
export type ParamValues = (key: string, spec: ParamSpec, dtype: DType) => Tensor;

function seededValues(seed: number): ParamValues {
  return (key, { init, shape }, dtype) => initTensor(init, dtype, shape, seed, key);
}

/** The insertion as a pass over sites already selected, for pipelines of one's own. */
export function insertPass(
  method: Method,
  config: Readonly<Record<string, unknown>>,
  selected: readonly SelectedSite[],
  valuesOf: ParamValues,
  onSite: (site: AdapterSite) => void,
): Pass {
  return {
    name: `insert-${method.id}`,
    summary: method.summary,
    *run(model) {
      const taken = valueNames(model);
      const modules = new Map<string, ModuleParams>();
      const wirings: Wiring[] = [];
      for (const { site, overrides } of selected) {
        const siteConfig = configureMethod(method, { ...config, ...overrides });
        const module = site.callOf ?? site.path;
        let params = modules.get(module);
        if (params === undefined) {
          params = makeParams(method, site, siteConfig, valuesOf, taken);
          modules.set(module, params);
          // In the main graph, where nested graphs and further calls of the module see them.
          yield {
            label: `parameters of ${method.id} at ${module}`,
            graph: model.graph,
            addInitializers: Object.values(params.values),
          };
          onSite({ path: module, kind: site.kind, config: jsonOf(siteConfig), params: params.record });
        }
        wirings.push({ site, config: siteConfig, params: params.values });
      }
      // Last sites first: an output that feeds another site directly then takes that site's branch along when it is redirected.
      for (const { site, config, params } of wirings.reverse())
        yield wire(model, method, config, site, params);
    },
  };
}

interface Wiring {
  readonly site: Site;
  readonly config: Record<string, unknown>;
  readonly params: ModuleParams['values'];
}

interface ModuleParams {
  readonly values: Readonly<Record<string, Value>>;
  readonly record: Record<string, AdapterParam>;
}

/** The tensors of a method at a module, with the initial values of the seed. */
function makeParams(
  method: Method,
  site: Site,
  config: Record<string, unknown>,
  valuesOf: ParamValues,
  taken: Set<string>,
): ModuleParams {
  const { path, dtype } = site;
  const values: Record<string, Value> = {};
  const record: Record<string, AdapterParam> = {};
  for (const [role, spec] of Object.entries(rulesFor(method, site.kind, path).params(dimsOf(site), config))) {
    const key = `${path}.${spec.key ?? role}`;
    const name = claimName(key, taken);
    record[role] = {
      key,
      name,
      shape: [...spec.shape],
      dtype,
      trainable: spec.trainable ?? true,
      group: spec.group ?? 'default',
      weightDecay: spec.weightDecay ?? true,
    };
    const tensor = valuesOf(key, spec, dtype);
    values[role] = new Value({ name, type: tensorType(dtype, spec.shape), tensor });
  }
  return { values, record };
}

function jsonOf(config: Readonly<Record<string, unknown>>): AdapterRecord['config'] {
  return JSON.parse(JSON.stringify(config)) as AdapterRecord['config'];
}

/** Elements of all floating-point constants of rank 1 and more: what the share of trainable weights divides by. */
export function countWeights(model: Model): number {
  let count = 0;
  for (const [, tensor] of constants(model))
    if (isFloat(tensor.dtype) && tensor.dims.length > 0) count += elementsOf(tensor);
  return count;
}

function sharedWeights(selected: readonly SelectedSite[]): InsertReport['shared'] {
  return selected
    .map(({ site }) => ({
      path: site.path,
      weight: site.weight.value.label,
      consumers: site.weight.value.uses.size,
    }))
    .filter(({ consumers }) => consumers > 1);
}
