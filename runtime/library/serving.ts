/** Serving graphs: a base with slots for adapters, and the tensors that mean "no adapter". */
import { type AdapterRecord, readAdapterRecord } from '../../passes/adapter-record.js';
import { type InsertPlan, methodAt, planModules } from '../../passes/insert/plan.js';
import { configure } from '../../passes/methods/contract/configurable.js';
import { isDerived } from '../../passes/methods/contract/derived.js';
import type { Method } from '../../passes/methods/contract/method.js';
import { resolveMethod } from '../../passes/methods/registry.js';
import { findSites } from '../../passes/sites/index.js';
import { modulePath } from '../../passes/sites/targeting.js';
import { emitAdapted } from '../../passes/targets/adapted.js';
import {
  emptyShape,
  type ServingInput,
  type ServingOptions,
  servingInputs,
} from '../../passes/targets/serving.js';
import { cloneModel } from '../../src/clone.js';
import { fail } from '../../src/errors.js';
import { initTensor } from '../../src/initializer.js';
import { encodeNumbers } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { readModel, type WriteOptions, writeModel } from '../../src/onnx/index.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { type AdapterFile, readAdapter } from '../adapter-file.js';
import { deriveValues } from '../derive/derive.js';
import { surveyed } from '../derive/survey.js';
import { rescaled, unscaledAdapter } from '../export/rescale.js';
import { type AttachTrainedOptions, attach } from './attach.js';

export interface ServeOptions extends ServingOptions, Omit<AttachTrainedOptions, 'run'> {
  /** The base. */
  readonly model: string | Model;
  /** An adapter of the structure that the graph is for; its numbers are not in the graph. */
  readonly adapter: string | AdapterFile;
  /**
   * Inputs have the values of no adapter as defaults, so that whoever feeds nothing gets the base. JavaScript runtimes
   * ignore what is fed to such inputs; C, C++, C#, Java, Python and ORT GenAI do not. Default false.
   */
  readonly optional?: boolean;
  /** Path of the serving graph; absent to keep it in memory. */
  readonly out?: string;
  readonly force?: boolean;
  readonly write?: Pick<WriteOptions, 'externalData' | 'weights'>;
}

export interface ServingModel {
  readonly model: Model;
  /** What has to be fed beside the base's own inputs. */
  readonly inputs: readonly ServingInput[];
  /** Tensors with which the graph computes what the base computes, or why there are none. */
  readonly none: ReadonlyMap<string, Tensor> | string;
}

/**
 * The base with slots for adapters as required inputs. By default adapters may have any rank, zero for none, and right
 * factors hold the scale, as `export --format onnx_adapter` writes them. The base is not changed, and a graph that is
 * written shares its external data.
 * @throws E_INVALID_DATA for an adapter of another base, E_NO_MATCH for a module that the model lacks, E_UNSUPPORTED for
 * names that lack a tensor, E_EXISTS.
 */
export async function serve(options: ServeOptions): Promise<ServingModel> {
  const { model: given, adapter, out, force = false, write = {}, optional, anyBase, peft, ...rest } = options;
  const settings: ServingOptions = { ...rest, scale: rest.scale ?? 'factor', rank: rest.rank ?? 'free' };
  const { methods, scale } = settings;
  const base = typeof given === 'string' ? readModel(given) : given;
  const { model: adapted } = cloneModel(base);
  const { paths } = options;
  const file =
    typeof adapter === 'string'
      ? await readAdapter(adapter, {
          base,
          ...peft,
          ...(methods === undefined ? {} : { methods }),
          ...(paths === undefined ? {} : { paths }),
        })
      : adapter;
  await attach(adapted, scale === 'graph' ? file : await unscaledAdapter(file, methods), {
    anyBase: anyBase ?? false,
    ...(methods === undefined ? {} : { methods }),
    ...(paths === undefined ? {} : { paths }),
  });
  const record = readAdapterRecord(adapted);
  const model = emitAdapted(adapted, { ...settings, adapterIo: 'inputs' });
  const inputs = servingInputs(record, settings);
  const none = await neutralTensors(base, record, inputs, options);
  if (optional === true) giveDefaults(model, none);
  if (out !== undefined) await writeModel(model, out, { ...write, force });
  return { model, inputs, none };
}

/**
 * What to feed for no adapter: factors of rank 0, and for other tensors the value that their method declares neutral. A
 * text says which method has none.
 */
export async function neutralTensors(
  base: Model,
  record: AdapterRecord,
  inputs: readonly ServingInput[],
  { methods, paths }: Pick<ServeOptions, 'methods' | 'paths'> = {},
): Promise<ReadonlyMap<string, Tensor> | string> {
  const tensors = new Map<string, Tensor>();
  const wanted = new Map<string, ServingInput>();
  for (const input of inputs) {
    const empty = emptyShape(input);
    if (input.kind === 'scale') tensors.set(input.name, ones(input));
    else if (empty !== undefined)
      tensors.set(input.name, tensorOfBytes(input.dtype, empty, new Uint8Array(0)));
    else wanted.set(input.key, input);
  }
  if (wanted.size > 0) {
    const plan = await withArrays(planOf(base, record, methods, paths));
    const modules = planModules(plan);
    const derived = new Map<string, Tensor>();
    const sites = new Set(
      modules.flatMap(({ params, sites: calls, entry }) =>
        params.some(
          ({ key, spec }) => wanted.has(key) && spec.neutral === undefined && isDerived(spec.init),
        ) && methodAt(plan, entry).startsAsBase
          ? calls
          : [],
      ),
    );
    if (sites.size > 0)
      for (const [key, tensor] of await deriveValues(
        { ...plan, sites: plan.sites.filter(({ site }) => sites.has(site)) },
        record.seed,
      ))
        derived.set(key, tensor);
    for (const { entry, path, params } of modules) {
      const method = methodAt(plan, entry);
      for (const { key, spec, dtype } of params) {
        const input = wanted.get(key);
        if (input === undefined || tensors.has(input.name)) continue;
        const init = spec.neutral ?? (method.startsAsBase ? spec.init : undefined);
        if (init === undefined)
          return `${method.id} at ${path} has no values that leave the base as it is; serve the base as a model of its own, or put adapters side by side with combine`;
        const value = isDerived(init)
          ? (derived.get(key) as Tensor)
          : initTensor(init, dtype, spec.shape, record.seed, key);
        tensors.set(input.name, await rescaled(value, 1, input.dtype));
      }
    }
  }
  // In the order of the graph.
  return new Map(inputs.map(({ name }) => [name, tensors.get(name) as Tensor]));
}

/** Makes the inputs overridable initializers. */
function giveDefaults(model: Model, none: ReadonlyMap<string, Tensor> | string): void {
  if (typeof none === 'string')
    fail('E_UNSUPPORTED', { message: none, remedy: 'Leave the inputs without defaults' });
  for (const value of model.graph.inputs) {
    const tensor = none.get(value.name ?? '');
    if (tensor === undefined) continue;
    value.tensor = tensor;
    model.graph.addInitializer(value);
  }
}

function ones({ dtype, shape }: ServingInput): Tensor {
  return tensorOfBytes(dtype, shape as readonly number[], encodeNumbers(dtype, [1]));
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
  const sites = findSites(base, paths === undefined ? {} : { paths });
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
