/** The tensors that mean "no adapter" to a serving graph. */
import type { AdapterRecord } from '../../passes/adapter-record.js';
import { type InsertPlan, methodAt, planModules } from '../../passes/insert/plan.js';
import { configure } from '../../passes/methods/contract/configurable.js';
import { isDerived } from '../../passes/methods/contract/derived.js';
import type { Method } from '../../passes/methods/contract/method.js';
import { resolveMethod } from '../../passes/methods/registry.js';
import { findSites } from '../../passes/sites/index.js';
import { opened } from '../../passes/sites/opened.js';
import { modulePath } from '../../passes/sites/targeting.js';
import { emptyShape, type ServingInput } from '../../passes/targets/serving.js';
import { fail } from '../../src/errors.js';
import { initTensor } from '../../src/initializer.js';
import { tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { countOf } from '../../src/types.js';
import { deriveValues } from '../derive/derive.js';
import { surveyed } from '../derive/survey.js';
import { rescaled } from './rescale.js';

export interface NeutralOptions {
  /** Methods of one's own that the record may name. */
  readonly methods?: readonly Method[];
  /** Paths of modules, where the user gave them. */
  readonly paths?: ReadonlyMap<string, string>;
}

/**
 * What to feed for no adapter: factors of rank 0, and for other tensors the value that their method declares neutral. A
 * text says which method has none.
 */
export async function neutralTensors(
  base: Model,
  record: AdapterRecord,
  inputs: readonly ServingInput[],
  { methods, paths }: NeutralOptions = {},
): Promise<ReadonlyMap<string, Tensor> | string> {
  const tensors = new Map<string, Tensor>();
  const wanted = new Map<string, ServingInput>();
  for (const input of inputs) {
    const tensor = withoutMethod(input);
    if (tensor === undefined) wanted.set(input.key, input);
    else tensors.set(input.name, tensor);
  }
  if (wanted.size > 0) {
    const found = await ofMethods(
      await withArrays(planOf(base, record, methods, paths)),
      wanted,
      record.seed,
    );
    if (typeof found === 'string') return found;
    for (const [name, tensor] of found) tensors.set(name, tensor);
  }
  // In the order of the graph.
  return new Map(inputs.map(({ name }) => [name, tensors.get(name) as Tensor]));
}

/** What no method has to be asked for: the number that an input declares, or nothing of a free rank. */
function withoutMethod(input: ServingInput): Tensor | undefined {
  const { neutral, shape, dtype } = input;
  if (neutral !== undefined) {
    const dims = shape as readonly number[];
    return tensorOf(dtype, dims, new Float64Array(countOf(dims)).fill(neutral));
  }
  const empty = emptyShape(input);
  return empty === undefined ? undefined : tensorOfBytes(dtype, empty, new Uint8Array(0));
}

/** Values by name of the input, of inputs by key; or which method has none. */
async function ofMethods(
  plan: InsertPlan,
  wanted: ReadonlyMap<string, ServingInput>,
  seed: number,
): Promise<ReadonlyMap<string, Tensor> | string> {
  const derived = await derivedNeutrals(plan, wanted, seed);
  const tensors = new Map<string, Tensor>();
  for (const { entry, path, params } of planModules(plan)) {
    const method = methodAt(plan, entry);
    for (const { key, spec, dtype } of params) {
      const input = wanted.get(key);
      if (input === undefined || tensors.has(input.name)) continue;
      const init = spec.neutral ?? (method.startsAsBase ? spec.init : undefined);
      if (init === undefined)
        return `${method.id} at ${path} has no values that leave the base as it is; serve the base as a model of its own, or put adapters side by side with combine`;
      const value = isDerived(init)
        ? (derived.get(key) as Tensor)
        : initTensor(init, dtype, spec.shape, seed, key);
      tensors.set(input.name, await rescaled(value, 1, input.dtype));
    }
  }
  return tensors;
}

/** Initial values that come from the base, by key, of methods that start as the base. */
async function derivedNeutrals(
  plan: InsertPlan,
  wanted: ReadonlyMap<string, ServingInput>,
  seed: number,
): Promise<ReadonlyMap<string, Tensor>> {
  const sites = new Set(
    planModules(plan).flatMap(({ params, sites: calls, entry }) =>
      methodAt(plan, entry).startsAsBase &&
      params.some(({ key, spec }) => wanted.has(key) && spec.neutral === undefined && isDerived(spec.init))
        ? calls
        : [],
    ),
  );
  if (sites.size === 0) return new Map();
  return deriveValues({ ...plan, sites: plan.sites.filter(({ site }) => sites.has(site)) }, seed);
}

/** What surveys found belongs to the record already, but for arrays, which it does not hold. */
async function withArrays(plan: InsertPlan): Promise<InsertPlan> {
  const found = await surveyed(plan);
  if (found === plan) return plan;
  const arrays = new Map(found.sites.map(({ entry, site, arrays: of }) => [`${entry} ${site.path}`, of]));
  return {
    ...plan,
    sites: plan.sites.map((planned) => {
      const own = arrays.get(`${planned.entry} ${planned.site.path}`);
      return own === undefined ? planned : { ...planned, arrays: own };
    }),
  };
}

/** The record as the plan that insertion made. */
function planOf(
  base: Model,
  record: AdapterRecord,
  methods: readonly Method[] | undefined,
  paths: ReadonlyMap<string, string> | undefined,
): InsertPlan {
  const kinds = record.sites.map(({ kind }) => kind);
  const sites = findSites(opened(base, kinds), paths === undefined ? {} : { paths });
  const entries = record.entries.map(({ method: id, config }) => {
    const method = resolveMethod(id, methods);
    return { method, config: configure(method, config) };
  });
  return {
    entries,
    sites: record.sites.flatMap(({ entry, kind, path, config }) => {
      const found = sites.filter((site) => site.kind === kind && modulePath(site) === path);
      const method = entries[entry]?.method;
      if (found.length === 0 || method === undefined)
        return fail('E_NO_MATCH', { message: `The model has no module '${path}'` });
      return found.map((site) => ({ entry, site, config: configure(method, config) }));
    }),
    skipped: [],
  };
}
