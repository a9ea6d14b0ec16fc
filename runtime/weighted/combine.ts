/** Several adapters as one, by weight, to be folded or exported: PEFT's `add_weighted_adapter`. */
import type { AdapterParam, AdapterRecord, AdapterSite } from '../../passes/adapter-record.js';
import { jsonOf } from '../../passes/adapter-record.js';
import type { Method } from '../../passes/methods/contract/method.js';
import type { WeightedFactors } from '../../passes/methods/contract/weighted.js';
import { resolveMethod } from '../../passes/methods/registry.js';
import { fail } from '../../src/errors.js';
import type { Tensor } from '../../src/tensor.js';
import { tensorOfBytes } from '../../src/tensor.js';
import type { AdapterFile } from '../adapter-file.js';
import { digestBytes } from '../digest.js';
import { loadTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';
import { COMBINATIONS } from './combinations.js';
import { mix } from './mix.js';

export interface WeightedOptions {
  /** One per adapter; default 1 each, which adds them up. */
  readonly weights?: readonly number[];
  /** `cat` is the exact sum and the default; the others are PEFT's `combination_type`. */
  readonly combination?: string;
  /** Share of the entries that pruning combinations keep. Default 0.5. */
  readonly density?: number;
  /** Rank of combinations that end in a singular value decomposition. Default: the largest of the adapters. */
  readonly rank?: number;
  readonly sign?: 'total' | 'frequency';
  /** Of the random masks of DARE. Default 0. */
  readonly seed?: number;
  readonly methods?: readonly Method[];
}

/** Sites of the adapters at one place. */
interface Place {
  readonly site: AdapterSite;
  readonly parts: { readonly adapter: AdapterFile; readonly site: AdapterSite; readonly weight: number }[];
}

/**
 * Combines adapters of one method. Where an adapter has no module, the others alone count.
 * @throws E_USAGE for numbers of weights that do not fit and combinations that do not exist, E_UNSUPPORTED for methods
 * whose adapters do not add up, E_INVALID_DATA for adapters of different bases.
 */
export async function weightedAdapter(
  adapters: readonly AdapterFile[],
  options: WeightedOptions = {},
): Promise<AdapterFile> {
  const weights = options.weights ?? adapters.map(() => 1);
  if (weights.length !== adapters.length)
    fail('E_USAGE', {
      message: `${adapters.length} adapters and ${weights.length} weights`,
      remedy: 'Give one weight per adapter, in the same order',
    });
  const method = commonMethod(adapters, options);
  const tensors = new Map<string, Tensor>();
  const sites: AdapterSite[] = [];
  for (const place of placesOf(adapters, weights))
    sites.push(await combined(method, place, tensors, options));
  const { record } = adapters[0] as AdapterFile;
  const [first] = record.entries;
  const merged: AdapterRecord = {
    version: record.version,
    entries: first === undefined ? [] : [{ ...first, config: sites[0]?.config ?? first.config }],
    seed: record.seed,
    ...(record.base === undefined ? {} : { base: record.base }),
    sites,
  };
  const identity = JSON.stringify([
    adapters.map(({ digest }) => digest),
    { ...options, methods: undefined, weights },
  ]);
  return { record: merged, tensors, digest: digestBytes(identity) };
}

function commonMethod(adapters: readonly AdapterFile[], { methods }: WeightedOptions): Method {
  const bases = new Set(adapters.flatMap(({ record }) => record.base ?? []));
  if (bases.size > 1)
    fail('E_INVALID_DATA', {
      message: 'The adapters were trained on models with different weights',
      remedy: 'Combine adapters of one base',
    });
  const ids = [...new Set(adapters.flatMap(({ record }) => record.entries.map(({ method }) => method)))];
  const method = resolveMethod(ids[0] ?? '', methods);
  if (ids.length === 1 && method.weighted !== undefined) return method;
  return fail('E_UNSUPPORTED', {
    message:
      ids.length > 1
        ? `Adapters of ${ids.join(' and ')} have no weighted sum`
        : `Adapters of ${method.id} have no weighted sum: what they do to a weight depends on the weight`,
    remedy:
      'Fold one after the other: --any-base for the second; or choose between them in one model, with combine',
  });
}

function placesOf(adapters: readonly AdapterFile[], weights: readonly number[]): Place[] {
  const places = new Map<string, Place>();
  for (const [i, adapter] of adapters.entries())
    for (const site of adapter.record.sites) {
      const id = `${site.kind} ${site.path}`;
      const place = places.get(id) ?? { site, parts: [] };
      places.set(id, place);
      place.parts.push({ adapter, site, weight: weights[i] as number });
    }
  return [...places.values()];
}

async function combined(
  { weighted, id }: Method,
  place: Place,
  tensors: Map<string, Tensor>,
  options: WeightedOptions,
): Promise<AdapterSite> {
  if (weighted?.by === 'factors') return combinedFactors(weighted, id, place, tensors, options);
  const name = options.combination ?? 'linear';
  if (name !== 'linear')
    fail('E_USAGE', {
      message: `Adapters of ${id} are combined by 'linear' alone`,
      remedy: 'Leave --combine out, or give linear',
    });
  for (const [role, param] of Object.entries(place.site.params)) {
    const values: Float64Array[] = [];
    for (const part of place.parts) values.push(await valuesOf(part.adapter, part.site, role, id));
    const mixed = mix(
      name,
      { tensors: values, weights: place.parts.map(({ weight }) => weight) },
      settings(options, place),
    );
    tensors.set(param.key, tensorOf(param.dtype, param.shape, mixed));
  }
  return { ...place.site, entry: 0 };
}

async function combinedFactors(
  { left, right, scale, unscaled }: WeightedFactors,
  id: string,
  { site, parts }: Place,
  tensors: Map<string, Tensor>,
  options: WeightedOptions,
): Promise<AdapterSite> {
  const extra = parts
    .flatMap((part) => Object.keys(part.site.params))
    .find((role) => role !== left && role !== right);
  if (extra !== undefined)
    fail('E_UNSUPPORTED', {
      message: `Adapters of ${id} with '${extra}' have no weighted sum`,
      where: site.path,
      remedy: 'Combine adapters that have factors alone',
    });
  const name = options.combination ?? 'cat';
  const combination =
    COMBINATIONS[name] ??
    fail('E_USAGE', {
      message: `There is no combination '${name}'`,
      remedy: `There are ${Object.keys(COMBINATIONS).join(', ')}`,
    });
  const updates = [];
  for (const { adapter, site: own, weight } of parts) {
    const [rows = 0, rank = 0] = own.params[left]?.shape ?? [];
    const columns = own.params[right]?.shape[1] ?? 0;
    updates.push({
      rows,
      columns,
      rank,
      left: await valuesOf(adapter, own, left, id),
      right: await valuesOf(adapter, own, right, id),
      scale: scale(own.config),
      weight,
    });
  }
  const result = combination(updates, {
    ...settings(options, { site, parts }),
    ...(options.rank === undefined ? {} : { rank: options.rank }),
    path: site.path,
  });
  const [first] = updates;
  const shapes = { [left]: [first?.rows ?? 0, result.rank], [right]: [result.rank, first?.columns ?? 0] };
  const values = { [left]: result.left, [right]: result.right };
  const params: Record<string, AdapterParam> = {};
  for (const [role, param] of Object.entries(site.params)) {
    const shape = shapes[role] as number[];
    params[role] = { ...param, shape };
    // Stored as trained: half-precision models take them rounded once.
    tensors.set(param.key, tensorOf('float32', shape, values[role] as Float64Array));
  }
  return { ...site, entry: 0, config: jsonOf(unscaled(site.config, result.rank)), params };
}

function settings({ density = 0.5, sign = 'total', seed = 0 }: WeightedOptions, { site }: Place) {
  return { density, sign, seed, key: `${site.kind} ${site.path}` };
}

async function valuesOf(
  { tensors }: AdapterFile,
  site: AdapterSite,
  role: string,
  id: string,
): Promise<Float64Array> {
  const key = site.params[role]?.key ?? '';
  const tensor =
    tensors.get(key) ??
    fail('E_INVALID_DATA', {
      message: `The ${id} adapter lacks tensor '${key}'`,
      where: site.path,
      remedy: 'Use the file that training wrote',
    });
  return Float64Array.from(numbersOf(await loadTensor(tensor)));
}

function tensorOf(dtype: AdapterParam['dtype'], dims: readonly number[], values: Float64Array): Tensor {
  const { data } = tensorOfNumbers(dtype, dims, values);
  return tensorOfBytes(dtype, dims, data);
}
