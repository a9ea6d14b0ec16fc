/** An `.onnx_adapter` as an adapter of ours for a given base: names say the modules, right factors hold the scale. */
import { jsonOf } from '../../../passes/adapter-record.js';
import { type PlannedSite, planModules } from '../../../passes/insert/plan.js';
import { configure } from '../../../passes/methods/contract/configurable.js';
import { type Method, rulesFor } from '../../../passes/methods/contract/method.js';
import type { PeftFormat } from '../../../passes/methods/contract/peft-format.js';
import type { WeightedFactors } from '../../../passes/methods/contract/weighted.js';
import { METHODS } from '../../../passes/methods/registry.js';
import { findSites } from '../../../passes/sites/index.js';
import { dimsOf } from '../../../passes/sites/kinds/index.js';
import type { Site } from '../../../passes/sites/site.js';
import { modulePath } from '../../../passes/sites/targeting.js';
import { DIALECTS } from '../../../passes/targets/dialects.js';
import { scaledRoles } from '../../../passes/targets/serving.js';
import { fail } from '../../../src/errors.js';
import { didYouMean } from '../../../src/nearest.js';
import type { Tensor } from '../../../src/tensor.js';
import type { AdapterFile } from '../../adapter.js';
import { digestFile, digestWeights } from '../../digest.js';
import { loadTensor, numbersOf } from '../../host-tensor.js';
import { type ReadPeftOptions, recordOf } from '../../peft/read.js';
import { rescaled } from '../rescale.js';
import { fingerprint, isFingerprint } from './fingerprint.js';
import { readOnnxAdapter } from './read.js';

/** A method whose tensors such files hold: low-rank factors under PEFT's keys. */
interface Known {
  readonly method: Method;
  readonly factors: WeightedFactors;
  readonly format: PeftFormat;
}

/** What a name means. */
interface Place {
  readonly known: Known;
  readonly site: Site;
  /** Undefined for the module's scale. */
  readonly role: string | undefined;
  readonly key: string;
}

interface Module {
  readonly known: Known;
  readonly site: Site;
  /** By role. */
  readonly tensors: Map<string, { readonly name: string; readonly key: string; readonly tensor: Tensor }>;
  scale: number;
}

/**
 * Reads a file for a base. Modules without rank are left out. Throws E_NO_MATCH for a name that means no module, E_INVALID_DATA
 * for half a pair, shapes that do not fit, a malformed file, or one that holds no adapter.
 */
export async function readAdapterOfOnnx(
  path: string,
  { base, map = {}, methods = [], paths }: ReadPeftOptions,
): Promise<AdapterFile> {
  const file = readOnnxAdapter(path);
  const sites = findSites(base, paths === undefined ? {} : { paths });
  const places = placesOf(sites, [...methods, ...METHODS]);
  const modules = new Map<Site, Module>();
  for (const [name, tensor] of file.tensors) {
    const place = places.get(mapped(name, map)) ?? places.get(name) ?? unknown(name, places, path);
    const { known, site, role, key } = place;
    const module = modules.get(site) ?? { known, site, tensors: new Map(), scale: 1 };
    modules.set(site, module);
    if (role === undefined) module.scale = await numberOf(name, tensor, path);
    else if (module.tensors.has(role))
      fail('E_INVALID_DATA', {
        message: `'${name}' and '${module.tensors.get(role)?.name}' are the same tensor of '${modulePath(site)}'`,
        where: path,
        remedy: 'Keep one of them',
      });
    else module.tensors.set(role, { name, key, tensor });
  }
  const order = new Map(sites.map((site, index) => [site, index]));
  const inOrder = [...modules.values()].sort((a, b) => (order.get(a.site) ?? 0) - (order.get(b.site) ?? 0));
  return adapterOf(inOrder, sites, { path, base, modelVersion: file.modelVersion });
}

/** Every name under which a tensor of the base's modules may come, in all dialects. */
function placesOf(sites: readonly Site[], methods: readonly Method[]): Map<string, Place> {
  const places = new Map<string, Place>();
  const add = (name: string, place: Place) => {
    if (!places.has(name)) places.set(name, place);
  };
  for (const method of methods) {
    const { weighted, peft } = method;
    if (weighted?.by !== 'factors' || peft === undefined) continue;
    const known = { method, factors: weighted, format: peft };
    for (const site of sites) {
      const roles = peft.tensors[site.kind];
      const path = modulePath(site);
      if (site.callOf !== undefined || roles === undefined || method.sites[site.kind] === undefined) continue;
      for (const [role, { key }] of Object.entries(roles))
        for (const dialect of DIALECTS) {
          const place: Place = { known, site, role, key };
          if (dialect.fromPeft) add(dialect.name(path, key), place);
          // Our own keys are PEFT's without the module of the weight.
          else add(dialect.name(path, key.replace(/\.weight$/, '')), place);
          add(dialect.name(path, 'lora_scale'), { known, site, role: undefined, key: 'lora_scale' });
        }
    }
  }
  return places;
}

/** A name with the longest beginning that the map knows replaced. */
function mapped(name: string, map: Readonly<Record<string, string>>): string {
  const [found] = Object.keys(map)
    .filter((one) => name.startsWith(`${one}.`))
    .sort((a, b) => b.length - a.length);
  return found === undefined ? name : `${map[found]}${name.slice(found.length)}`;
}

function unknown(name: string, places: ReadonlyMap<string, Place>, path: string): never {
  return fail('E_NO_MATCH', {
    message: `'${name}' names no module of the model`,
    where: path,
    remedy: `${didYouMean(name, [...places.keys()])} Names that differ go into a map (--map); files of methods other than low-rank ones are not read`,
  });
}

async function numberOf(name: string, tensor: Tensor, path: string): Promise<number> {
  const numbers = numbersOf(await loadTensor(tensor));
  if (numbers.length === 1) return numbers[0] as number;
  return fail('E_INVALID_DATA', {
    message: `'${name}' is a scale and has ${numbers.length} elements`,
    where: path,
    remedy: 'Write the adapter again',
  });
}

interface Context {
  readonly path: string;
  readonly base: ReadPeftOptions['base'];
  readonly modelVersion: number;
}

async function adapterOf(
  modules: readonly Module[],
  sites: readonly Site[],
  { path, base, modelVersion }: Context,
): Promise<AdapterFile> {
  const planned: PlannedSite[] = [];
  const methods = [...new Set(modules.map(({ known }) => known.method))];
  const kept = modules.filter((module) => rankOf(module, path) > 0);
  const [first] = kept;
  if (first === undefined)
    return fail('E_INVALID_DATA', {
      message: 'The file holds no adapter: it has no tensors, or all are of rank 0',
      where: path,
      remedy: 'Rank 0 stands for no adapter; the base itself is what it gives',
    });
  for (const module of kept) {
    const config = configOf(module, path);
    const entry = methods.indexOf(module.known.method);
    checkShapes(module, config, path);
    for (const site of sites)
      if (site === module.site || site.callOf === module.site.path) planned.push({ entry, site, config });
  }
  const entries = methods.map((method) => ({
    method,
    config: planned.find(({ entry }) => methods[entry] === method)?.config ?? {},
  }));
  const plan = { entries, sites: planned, skipped: [] };
  const found = planModules(plan);
  const record = recordOf(base, plan, found);
  const byPath = new Map(kept.map((module) => [`${module.site.kind} ${modulePath(module.site)}`, module]));
  const tensors = new Map<string, Tensor>();
  for (const { kind, path: modulePathOf, params } of found) {
    const module = byPath.get(`${kind} ${modulePathOf}`) as Module;
    const scaled = scaledRoles(module.known.factors);
    for (const { role, key } of params) {
      const { tensor } = module.tensors.get(role) as { tensor: Tensor };
      tensors.set(key, await rescaled(tensor, scaled.includes(role) ? module.scale : 1, tensor.dtype));
    }
  }
  const of = isFingerprint(modelVersion) ? await digestWeights(base) : undefined;
  const own = of !== undefined && fingerprint(of) === modelVersion ? of : undefined;
  const based =
    of === undefined ? record : { ...record, base: own ?? `of a base with the fingerprint ${modelVersion}` };
  return { record: based, tensors, digest: await digestFile(path) };
}

/** The rank, from both factors. Throws E_INVALID_DATA for half a pair and for factors of different rank. */
function rankOf({ known, site, tensors }: Module, path: string): number {
  const { left, right } = known.factors;
  const [A, B] = [tensors.get(left), tensors.get(right)];
  const where = modulePath(site);
  if (A === undefined || B === undefined) {
    const roles = known.format.tensors[site.kind] ?? {};
    return fail('E_INVALID_DATA', {
      message: `'${where}' has ${[...tensors.values()].map(({ name }) => `'${name}'`).join(', ') || 'a scale'} and lacks ${A === undefined ? roles[left]?.key : roles[right]?.key}`,
      where: path,
      remedy: 'The file is incomplete; write it again',
    });
  }
  const [rank, other] = [A.tensor.dims.at(-1) ?? 0, B.tensor.dims[0] ?? 0];
  if (rank !== other)
    fail('E_INVALID_DATA', {
      message: `The factors of '${where}' do not fit: [${A.tensor.dims.join(', ')}] and [${B.tensor.dims.join(', ')}]`,
      where: path,
      remedy: 'Factors are [in, r] and [r, out]; those of PEFT are the transposes',
    });
  return rank;
}

/** Settings under which the factors are what the file has: s is 1. */
function configOf(module: Module, path: string): Record<string, unknown> {
  const { known, site, tensors } = module;
  const rank = rankOf(module, path);
  const shapes = new Map([...tensors.values()].map(({ key, tensor }) => [key, tensor.dims]));
  const settings = known.format.settings(
    { r: rank, lora_alpha: rank },
    { path: modulePath(site), name: modulePath(site), shapes },
  );
  const config = configure(known.method, known.factors.unscaled(settings, rank));
  return jsonOf(config);
}

function checkShapes({ known, site, tensors }: Module, config: Record<string, unknown>, path: string): void {
  const specs = rulesFor(known.method, site.kind, site.path).params(dimsOf(site), config);
  for (const [role, { name, tensor }] of tensors) {
    const wanted = specs[role]?.shape.join(', ');
    const dims = tensor.dims.join(', ');
    if (wanted !== dims)
      fail('E_INVALID_DATA', {
        message: `'${name}' is [${dims}]; '${modulePath(site)}' takes ${wanted === undefined ? 'none such' : `[${wanted}]`}`,
        where: path,
        remedy:
          wanted === [...tensor.dims].reverse().join(', ')
            ? 'It is transposed: factors are [in, r] and [r, out] here'
            : 'The adapter is of another model',
      });
  }
  for (const role of Object.keys(specs))
    if (!tensors.has(role))
      fail('E_INVALID_DATA', {
        message: `'${modulePath(site)}' lacks '${specs[role]?.key ?? role}'`,
        where: path,
        remedy: 'The file is incomplete; write it again',
      });
}
