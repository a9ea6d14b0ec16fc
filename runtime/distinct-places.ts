/** Parameters that say which entries of a weight others are: a file that was edited may name one twice, or none. */
import type { AdapterRecord } from '../passes/adapter-record.js';
import type { Method } from '../passes/methods/contract/method.js';
import { FILE_METHODS } from '../passes/methods/from-files.js';
import { METHODS } from '../passes/methods/registry.js';
import type { SiteKind } from '../passes/sites/site.js';
import { fail } from '../src/errors.js';
import type { Tensor } from '../src/tensor.js';
import { loadTensor, numbersOf } from './host-tensor.js';

/** Throws E_INVALID_DATA for places that repeat or are negative: what a runtime makes of them is undefined. */
export async function checkPlaces(
  { entries, sites }: AdapterRecord,
  tensors: ReadonlyMap<string, Tensor>,
  where: string,
  own: readonly Method[] = [],
): Promise<void> {
  const methods = new Map([...FILE_METHODS, ...METHODS, ...own].map((method) => [method.id, method]));
  for (const { entry, kind, params } of sites) {
    const method = methods.get(entries[entry]?.method ?? '');
    for (const role of method?.sites[kind as SiteKind]?.places ?? []) {
      const key = params[role]?.key;
      const tensor = key === undefined ? undefined : tensors.get(key);
      if (tensor === undefined) continue;
      const places = Float64Array.from(numbersOf(await loadTensor(tensor))).sort();
      const bad = places.findIndex((place, i) => place < 0 || place === places[i - 1]);
      if (bad >= 0)
        fail('E_INVALID_DATA', {
          message: `'${key}' ${(places[bad] as number) < 0 ? `holds place ${places[bad]}, which is none` : `names place ${places[bad]} twice`}`,
          where,
          remedy: 'The file was edited; train again or restore it',
        });
    }
  }
}
