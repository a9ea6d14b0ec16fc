/** A folder that PEFT saved as an adapter of ours for a given base: the record, and tensors in our layout. */

import {
  type AdapterParam,
  type AdapterRecord,
  type AdapterSite,
  jsonOf,
} from '../../passes/adapter-record.js';
import {
  type InsertPlan,
  methodAt,
  type PlannedModule,
  type PlannedSite,
  planModules,
} from '../../passes/insert/plan.js';
import { configure } from '../../passes/methods/contract/configurable.js';
import { isDerived } from '../../passes/methods/contract/derived.js';
import { hasSayInTraining, type Method } from '../../passes/methods/contract/method.js';
import { findSites } from '../../passes/sites/index.js';
import { formOf, windowOf } from '../../passes/sites/module-form.js';
import type { Site } from '../../passes/sites/site.js';
import { modulePath } from '../../passes/sites/targeting.js';
import { claimName, valueNames } from '../../passes/value-names.js';
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import type { Tensor } from '../../src/tensor.js';
import type { AdapterFile } from '../adapter.js';
import { deriveValues } from '../derive/derive.js';
import { peftFile } from './file.js';
import { type Fit, Fits } from './fit.js';
import { accompanying, type FormattedMethod, methodOf } from './formats.js';
import { type SortedKeys, type StoredModule, sortKeys } from './keys.js';
import { peftShape, toOurs } from './layout.js';
import { matchModules } from './match.js';
import { byWeights } from './match-weights.js';
import { type PeftFolder, readPeftFolder } from './source.js';
import { planWhole, wholeTensors } from './whole.js';

export interface ReadPeftOptions {
  /** The base: its modules say what a key of the folder is. */
  readonly base: Model;
  /** Graph module by PEFT module, or by the beginning of its path. */
  readonly map?: Readonly<Record<string, string>>;
  /** `model.safetensors` of the base (or its shard index): modules are then found by the numbers of their weights. */
  readonly baseWeights?: string;
  readonly methods?: readonly Method[];
  /** Module paths of the graph by value or node name. */
  readonly paths?: ReadonlyMap<string, string>;
}

/**
 * Reads a folder. Every tensor lands in a parameter and every parameter gets a tensor.
 * @throws E_INVALID_DATA for files that are incomplete, E_UNSUPPORTED for types that are not read, E_NO_MATCH for modules
 * that the base lacks or that are ambiguous.
 */
export async function readPeft(path: string, options: ReadPeftOptions): Promise<AdapterFile> {
  const stored = await readPeftFolder(path);
  const owner = methodOf(stored.config, path, options.methods);
  const sites = findSites(options.base, options.paths === undefined ? {} : { paths: options.paths });
  const tensors = (await owner.format.rearranged?.(peftFile(stored, sites, options.map))) ?? stored.tensors;
  const folder = { ...stored, tensors };
  const others = accompanying(options.methods).filter(({ method }) => method !== owner.method);
  const keys = sortKeys(folder.tensors, owner, others, path);
  const reader = new Reader(folder, keys, owner, options, sites);
  return reader.read();
}

interface Matched {
  readonly module: StoredModule;
  readonly site: Site;
  readonly config: Record<string, unknown>;
}

class Reader {
  readonly #fits: Fits;

  constructor(
    readonly folder: PeftFolder,
    readonly keys: SortedKeys,
    readonly owner: FormattedMethod,
    readonly options: ReadPeftOptions,
    readonly sites: readonly Site[],
  ) {
    this.#fits = new Fits(folder.config);
  }

  async read(): Promise<AdapterFile> {
    const { folder, owner, keys } = this;
    const matched = await this.#match();
    const whole =
      owner.format.whole === undefined
        ? undefined
        : planWhole(this.options.base, owner, keys.whole, folder, this.options);
    const plan = this.#plan(matched, whole?.plan);
    const tensors = new Map<string, Tensor>();
    const modules = planModules(plan);
    const computed = await this.#computed(plan, modules);
    const bySite = new Map(
      matched.map((one) => [`${one.module.owner.method.id} ${one.site.kind} ${modulePath(one.site)}`, one]),
    );
    for (const module of modules) {
      const method = methodAt(plan, module.entry);
      if (whole !== undefined && method === owner.method) continue;
      const found = bySite.get(`${method.id} ${module.kind} ${module.path}`) as Matched;
      await this.#fill(tensors, module, found, computed);
    }
    if (whole !== undefined)
      for (const [key, tensor] of await wholeTensors(
        owner,
        keys.whole as Tensor,
        modules.filter(({ entry }) => methodAt(plan, entry) === owner.method),
        folder,
      ))
        tensors.set(key, tensor);
    return { record: recordOf(this.options.base, plan, modules), tensors, digest: folder.digest };
  }

  /** Sites of all modules; those tied to them where the method follows ties. */
  async #match(): Promise<Matched[]> {
    const { folder, keys, options } = this;
    const modules = keys.modules.map((module) => ({
      ...module,
      fits: (site: Site) => 'settings' in this.#fits.at(module, site),
      misfit: (site: Site) => misfitOf(this.#fits.at(module, site)),
    }));
    const evidence =
      options.baseWeights === undefined
        ? undefined
        : await byWeights(options.baseWeights, modules, this.sites);
    const found = matchModules(modules, this.sites, {
      where: folder.path,
      ...(options.map === undefined ? {} : { map: options.map }),
      ...(evidence === undefined ? {} : { evidence }),
    });
    // In model order, whatever that of the file is.
    const order = new Map(this.sites.map((site, index) => [site, index]));
    const inOrder = [...found].sort(([, a], [, b]) => (order.get(a) ?? 0) - (order.get(b) ?? 0));
    return inOrder.flatMap(([module, site]) =>
      [site, ...this.#tied(module, site)].flatMap((one) => {
        const fit = this.#fits.at(module, one);
        return 'settings' in fit ? [{ module, site: one, config: fit.settings }] : [];
      }),
    );
  }

  #tied({ owner }: StoredModule, site: Site): Site[] {
    if (owner.format.followsTies !== true || !('weight' in site)) return [];
    return this.sites.filter(
      (other) =>
        other !== site &&
        other.callOf === undefined &&
        'weight' in other &&
        other.weight.value === site.weight.value &&
        owner.format.tensors[other.kind] !== undefined,
    );
  }

  /** Weights that are stored whole come first: updates are of them. */
  #plan(matched: readonly Matched[], whole: InsertPlan | undefined): InsertPlan {
    const { folder, owner } = this;
    const used = [...new Set(matched.map(({ module }) => module.owner))];
    const owners = [...used.filter((one) => one !== owner), ...(used.includes(owner) ? [owner] : [])];
    const entries = owners.map(({ method, format }) => {
      const [first] = matched.filter(({ module }) => module.owner.method === method);
      const settings = method.config.safeParse(format.settings(folder.config));
      return {
        method,
        config: settings.success ? settings.data : ((first as Matched).config as Record<string, unknown>),
      };
    });
    const sites: PlannedSite[] = owners.flatMap((one, entry) =>
      matched
        .filter(({ module }) => module.owner === one)
        .map(({ site, config }) => ({ entry, site, config: { ...config } })),
    );
    const offset = entries.length;
    return {
      entries: [...entries, ...(whole?.entries ?? [])],
      sites: [...sites, ...(whole?.sites ?? []).map((site) => ({ ...site, entry: site.entry + offset }))],
      skipped: [],
    };
  }

  /** Values that PEFT does not store, and computes from the base's weights again. */
  async #computed(plan: InsertPlan, modules: readonly PlannedModule[]): Promise<ReadonlyMap<string, Tensor>> {
    const entries = new Set(
      modules.flatMap(({ entry, kind, params }) => {
        const { peft } = methodAt(plan, entry);
        const roles = peft?.tensors[kind] ?? {};
        const missing = params.some(({ role, spec }) => isDerived(spec.init) && roles[role] === undefined);
        return missing && peft?.whole === undefined ? [entry] : [];
      }),
    );
    if (entries.size === 0) return new Map();
    return deriveValues({ ...plan, sites: plan.sites.filter(({ entry }) => entries.has(entry)) }, 0);
  }

  /** The tensors of a module under our keys. */
  async #fill(
    tensors: Map<string, Tensor>,
    planned: PlannedModule,
    { module, site }: Matched,
    computed: ReadonlyMap<string, Tensor>,
  ): Promise<void> {
    const { format } = module.owner;
    const { folder } = this;
    const unused = new Set(module.tensors.keys());
    const { window } = windowOf(site);
    const outFirst = folder.config.fan_in_fan_out !== true || window !== undefined;
    for (const { role, key, spec, dtype } of planned.params) {
      const own = format.tensors[site.kind]?.[role];
      const value = own === undefined ? computed.get(key) : undefined;
      if (value !== undefined) {
        tensors.set(key, value);
        continue;
      }
      const wanted = own ?? format.shared?.[role];
      const tensor =
        wanted === undefined
          ? undefined
          : own === undefined
            ? this.keys.shared.get(wanted.key)
            : module.tensors.get(wanted.key);
      if (wanted === undefined || tensor === undefined)
        return fail('E_INVALID_DATA', {
          message: `The file lacks '${wanted?.key ?? role}' of ${module.path}${own === undefined ? ', which all modules share' : ''}`,
          where: folder.path,
          remedy:
            own === undefined
              ? 'Save the adapter with save_projection=True'
              : 'The folder is incomplete; save the adapter again',
        });
      unused.delete(wanted.key);
      const param = { shape: spec.shape, dtype, window };
      if (wanted.weight === true && !outFirst && spec.shape.length === 2 && spec.shape[0] === spec.shape[1])
        return fail('E_UNSUPPORTED', {
          message: `The weight of ${module.path} is square and the model has Conv1D modules: nothing says whether it is [in, out] or [out, in]`,
          where: folder.path,
          remedy: 'Merge it in Python (merge_and_unload) and export that model instead',
        });
      const ours =
        (await toOurs(tensor, wanted, param, outFirst)) ?? (await toOurs(tensor, wanted, param, !outFirst));
      if (ours === undefined)
        return fail('E_INVALID_DATA', {
          message: `'${wanted.key}' of ${module.path} is [${tensor.dims.join(', ')}]; '${modulePath(site)}' takes [${peftShape(wanted, spec.shape, outFirst).join(', ')}]`,
          where: folder.path,
          remedy: 'The adapter is of another model, or its configuration was edited',
        });
      tensors.set(key, ours);
    }
    if (unused.size > 0)
      fail('E_INVALID_DATA', {
        message: `${module.path} has tensors that its configuration does not call for: ${[...unused].join(', ')}`,
        where: folder.path,
        remedy: 'The folder was put together of several adapters; save the adapter again',
      });
  }
}

function misfitOf(fit: Fit): string | undefined {
  return 'misfit' in fit ? fit.misfit : undefined;
}

/** The record as insertion would have left it. */
export function recordOf(base: Model, plan: InsertPlan, modules: readonly PlannedModule[]): AdapterRecord {
  const taken = valueNames(base);
  const known = new Map<string, AdapterParam>();
  const sites = modules.map(({ entry, path, kind, config, params, sites: [first] }): AdapterSite => {
    const recorded: Record<string, AdapterParam> = {};
    for (const { role, key, spec, dtype } of params) {
      const param = known.get(key) ?? {
        key,
        name: claimName(key, taken),
        shape: [...spec.shape],
        dtype,
        trainable: spec.trainable ?? true,
        group: spec.group ?? 'default',
        lrScale: spec.lrScale ?? 1,
        weightDecay: spec.weightDecay ?? true,
      };
      known.set(key, param);
      recorded[role] = param;
    }
    return { entry, path, kind, config: jsonOf(config), ...formOf(first), params: recorded };
  });
  const entries = plan.entries.map(({ method, config }) => ({
    method: method.id,
    config: jsonOf(configure(method, config)),
    ...(hasSayInTraining(method) ? { trains: true } : {}),
  }));
  return { version: 2, entries, seed: 0, sites };
}
