/** Modules by the numbers of their weights: the base's `model.safetensors` says which name has which. */

import { storedOf } from '../../passes/sites/kinds/index.js';
import { payloadOf } from '../../passes/sites/payload.js';
import type { Site } from '../../passes/sites/site.js';
import { fail } from '../../src/errors.js';
import type { Tensor } from '../../src/tensor.js';
import { loadTensor, numbersOf } from '../host-tensor.js';
import { readSafetensors } from '../safetensors.js';
import type { Strategy, Wanted } from './match.js';

/** Half precision keeps two to three digits. */
const TOLERANCE = 1e-2;

/** Compares the weights of candidates, ahead of matching, which reads nothing. */
export async function byWeights(
  path: string,
  wanted: readonly Wanted[],
  sites: readonly Site[],
): Promise<Strategy> {
  const { tensors } = readSafetensors(path);
  const equal = new Map<string, Set<Site>>();
  for (const module of wanted) {
    const tensor = weightOf(tensors, module.path, path);
    if (equal.has(module.path) || tensor === undefined) continue;
    const numbers = numbersOf(await loadTensor(tensor));
    const same = new Set<Site>();
    for (const site of sites)
      if (site.callOf === undefined && module.fits(site) && (await holds(site, numbers, tensor.dims)))
        same.add(site);
    equal.set(module.path, same);
  }
  return (open, free) => {
    const placement = new Map<string, Site>();
    for (const { path: name } of open) {
      const candidates = free.filter((site) => equal.get(name)?.has(site) === true);
      if (candidates.length > 1)
        return { ambiguous: `${candidates.length} modules of the model have the weight of '${name}'` };
      if (candidates.length === 0) continue;
      placement.set(name, candidates[0] as Site);
    }
    return new Set(placement.values()).size === placement.size ? placement : undefined;
  };
}

/** A weight by its module's name, whatever stands in front of it. */
function weightOf(tensors: ReadonlyMap<string, Tensor>, module: string, where: string): Tensor | undefined {
  const exact = tensors.get(`${module}.weight`);
  if (exact !== undefined) return exact;
  const names = [...tensors.keys()].filter(
    (name) => name.endsWith(`.${module}.weight`) || `${module}.weight`.endsWith(`.${name}`),
  );
  if (names.length > 1)
    fail('E_NO_MATCH', {
      message: `Several weights may be that of '${module}': ${names.join(', ')}`,
      where,
      remedy: 'Name the modules with --map instead',
    });
  return tensors.get(names[0] ?? '');
}

/** Whether a site's stored weight has these numbers, as they are or transposed. */
async function holds(site: Site, numbers: ArrayLike<number>, dims: readonly number[]): Promise<boolean> {
  const { value } = storedOf(site).w ?? {};
  const tensor = value === undefined ? undefined : payloadOf(value);
  if (tensor === undefined) return false;
  const own = numbersOf(await loadTensor(tensor));
  if (own.length !== numbers.length) return false;
  const [rows = 1, columns = 1] = dims;
  let scale = 0;
  for (let i = 0; i < numbers.length; i++) scale = Math.max(scale, Math.abs(numbers[i] as number));
  const close = (at: (i: number) => number) => {
    for (let i = 0; i < own.length; i++)
      if (!(Math.abs((own[i] as number) - (numbers[at(i)] as number)) <= TOLERANCE * scale)) return false;
    return true;
  };
  return close((i) => i) || (dims.length === 2 && close((i) => (i % rows) * columns + Math.floor(i / rows)));
}
