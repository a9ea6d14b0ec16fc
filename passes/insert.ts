/**
 * Insertion: wires a method into every selected site and leaves a record of it in the model's metadata. The pass knows
 * sites and formulas, not methods: what is replaced (the output or the weight) is what the formula returns.
 */
import { z } from 'zod';
import { fail } from '../src/errors.js';
import { type Graph, type Use, Value, walkGraphs } from '../src/graph.js';
import { initTensor } from '../src/initializer.js';
import type { Model } from '../src/model.js';
import { didYouMean } from '../src/nearest.js';
import { Builder } from '../src/ops/builder.js';
import type { Ops } from '../src/ops/ops.generated.js';
import type { Tensor } from '../src/tensor.js';
import { type DType, tensorType } from '../src/types.js';
import type { AdapterParam, AdapterRecord, AdapterSite } from './adapter-record.js';
import { hasAdapterRecord, writeAdapterRecord } from './adapter-record.js';
import { adapterDropout } from './dropout.js';
import type { Anchor, Edit, Redirect } from './edit.js';
import type {
  AttachContext,
  Attached,
  EmbeddingView,
  Fold,
  LinearView,
  Method,
  ParamSpec,
} from './methods/method.js';
import { siteKindsOf } from './methods/method.js';
import { resolveMethod } from './methods/registry.js';
import type { Pass } from './pass.js';
import { type RunOptions, runPasses } from './runner.js';
import { findSites } from './sites/index.js';
import type { Site } from './sites/site.js';
import { type SelectedSite, selectSites, type Targeting } from './sites/targeting.js';
import { claimName, valueNames } from './value-names.js';
import { axisLast, consumedLayout, fromMatrix, inversePermutation, toMatrix } from './weight-form.js';

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

/** Inserts a method into a model, in place. Throws E_NO_MATCH when nothing is selected, E_USAGE on a bad configuration. */
export function insert(model: Model, options: InsertOptions): InsertReport {
  const method = resolveMethod(options.method);
  if (hasAdapterRecord(model))
    fail('E_UNSUPPORTED', {
      message: 'The model already holds an adapter',
      remedy: 'Insert into the base model, or fold the adapter first',
    });
  const base = countWeights(model);
  const config = parseConfig(method, options.config ?? {});
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
      for (const { site, overrides } of selected) {
        const siteConfig = parseConfig(method, { ...config, ...overrides });
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
        yield wire(model, method, siteConfig, site, params.values);
      }
    },
  };
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
  for (const [role, spec] of Object.entries(paramSpecs(method, site, config))) {
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

/** The edit that puts the method's formula at a site. */
function wire(
  model: Model,
  method: Method,
  config: Record<string, unknown>,
  site: Site,
  params: Readonly<Record<string, Value>>,
): Edit {
  const label = `${method.id} at ${site.path}`;
  const builder = new Builder(model, { provenance: label });
  const wiring = attach(builder, method, site, params, config);
  return {
    label,
    graph: site.graph,
    add: { nodes: builder.nodes, at: wiring.at },
    addInitializers: builder.initializers,
    redirect: [wiring.redirect],
  };
}

interface Wiring {
  readonly at: Anchor;
  readonly redirect: Redirect;
}

function paramSpecs(method: Method, site: Site, config: Record<string, unknown>): Record<string, ParamSpec> {
  return site.kind === 'linear'
    ? rulesOf(method.sites.linear, method, site).params(site, config)
    : rulesOf(method.sites.embedding, method, site).params(site, config);
}

/** The rules of a method for a site; E_UNSUPPORTED where it has none. */
export function rulesOf<Rules>(rules: Rules | undefined, method: Method, site: Site): Rules {
  return (
    rules ??
    fail('E_UNSUPPORTED', {
      message: `${method.id} has no rules for ${site.kind} sites`,
      where: site.path,
      remedy: `It adapts: ${siteKindsOf(method).join(', ')}`,
    })
  );
}

function attach(
  builder: Builder,
  method: Method,
  site: Site,
  params: Readonly<Record<string, Value>>,
  config: Record<string, unknown>,
): Wiring {
  if (site.y === undefined) return replaceWeight(site, weightForm(builder, method, site, params, config));
  const { op } = builder;
  const context: AttachContext = { dropout: (x, p) => adapterDropout(builder, x, p) };
  const w = { get: () => matrixOf(builder, site) };
  let attached: Attached;
  if (site.kind === 'linear') {
    const { path, inDim, outDim, dtype } = site;
    const x = featuresLast(op, site.x, site.xAxis);
    const y = featuresLast(op, site.y, site.yAxis);
    const view = Object.defineProperty({ path, inDim, outDim, dtype, x, y }, 'w', w) as LinearView;
    attached = rulesOf(method.sites.linear, method, site).attach(op, view, params, config, context);
    if ('y' in attached) attached = { y: featuresBack(op, attached.y, site.yAxis) };
  } else {
    const { path, vocab, dim, dtype, ids, y } = site;
    const view = Object.defineProperty({ path, vocab, dim, dtype, ids, y }, 'w', w) as EmbeddingView;
    attached = rulesOf(method.sites.embedding, method, site).attach(op, view, params, config, context);
  }
  if ('w' in attached) return replaceWeight(site, fromMatrixOf(builder, site, attached.w));
  const producer =
    site.y.producer ??
    fail('E_INVALID_GRAPH', { message: 'A site output has no producer', where: site.path });
  return { at: { after: producer }, redirect: { from: site.y, to: attached.y } };
}

/** Where a fused op leaves no output to add to, the fold formula itself feeds the op: W' = W + … as a subgraph. */
function weightForm(
  builder: Builder,
  method: Method,
  site: Site,
  params: Readonly<Record<string, Value>>,
  config: Record<string, unknown>,
): Value {
  const { fold } = rulesOf<{ readonly fold: Fold<Record<string, unknown>, string> }>(
    method.sites[site.kind],
    method,
    site,
  );
  if (typeof fold !== 'function')
    return fail('E_UNSUPPORTED', {
      message: `${method.id} needs the output of the linear, which a fused ${site.node.op} does not show`,
      where: site.path,
      remedy: 'Export the model without attention fusion',
    });
  const { w } = fold(builder.op, { w: matrixOf(builder, site) }, params, config);
  return fromMatrixOf(builder, site, w);
}

function replaceWeight(site: Site, weight: Value): Wiring {
  const { consumed, input } = site.weight;
  const only = (use: Use) => use.kind === 'node' && use.node === site.node && use.index === input;
  return { at: { before: site.node }, redirect: { from: consumed, to: weight, only } };
}

/** The weight the op reads, as [in, out]; built only for formulas that ask for it. */
function matrixOf({ op }: Builder, site: Site): Value {
  refusePacked(site);
  return toMatrix(op, site.weight.consumed, consumedLayout(site));
}

function fromMatrixOf({ op }: Builder, site: Site, matrix: Value): Value {
  return fromMatrix(op, matrix, site.weight.consumed, consumedLayout(site));
}

function refusePacked(site: Site): void {
  if (site.weight.storage === 'packed')
    fail('E_UNSUPPORTED', {
      message: 'The weight is packed in a layout that only its op understands',
      where: site.path,
      remedy: 'Choose a method that adds to the output, such as lora',
    });
}

function featuresLast(op: Ops, value: Value, axis: number): Value {
  const perm = axisLast(rankOf(value), axis);
  return perm === undefined ? value : op.Transpose(value, { perm });
}

function featuresBack(op: Ops, value: Value, axis: number): Value {
  const perm = axisLast(rankOf(value), axis);
  return perm === undefined ? value : op.Transpose(value, { perm: inversePermutation(perm) });
}

/** Rank of a value; an unknown rank is taken as one whose features are last. */
function rankOf(value: Value): number {
  return value.type?.kind === 'tensor' && value.type.shape !== null ? value.type.shape.length : 1;
}

function parseConfig(method: Method, config: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const result = method.config.safeParse(config);
  if (result.success) return result.data;
  return fail('E_USAGE', {
    message: `Configuration of ${method.id} is invalid: ${z.prettifyError(result.error)}`,
    remedy: `See peft-compile methods ${method.id}`,
  });
}

function jsonOf(config: Readonly<Record<string, unknown>>): AdapterRecord['config'] {
  return JSON.parse(JSON.stringify(config)) as AdapterRecord['config'];
}

/** Elements of all floating-point tensors of more than one element: what "share of trainable parameters" divides by. */
export function countWeights(model: Model): number {
  let count = 0;
  const add = (graph: Graph) => {
    for (const value of graph.initializers) {
      const { tensor } = value;
      if (tensor === undefined || !FLOATS.has(tensor.dtype) || tensor.dims.length === 0) continue;
      count += tensor.dims.reduce((product, dim) => product * dim, 1);
    }
  };
  for (const graph of walkGraphs(model.graph)) add(graph);
  return count;
}

const FLOATS = new Set(['float32', 'float16', 'bfloat16', 'float64']);

function sharedWeights(selected: readonly SelectedSite[]): InsertReport['shared'] {
  const sitesOf = new Map<Value, number>();
  for (const { site } of selected) sitesOf.set(site.weight.value, (sitesOf.get(site.weight.value) ?? 0) + 1);
  return selected
    .map(({ site }) => ({
      path: site.path,
      weight: site.weight.value.label,
      consumers: site.weight.value.uses.size,
    }))
    .filter(({ consumers }) => consumers > 1);
}
