/** The record of adapters that train together in one graph, and each of them again. */
import { fail } from '../src/errors.js';
import { didYouMean } from '../src/nearest.js';
import type { AdapterRecord, AdapterSite } from './adapter-record.js';

/**
 * One record of all adapters: keys begin with the adapter's name.
 * @param nameOf The initializer that holds a tensor, by index of the adapter and key.
 * @throws E_UNSUPPORTED for an adapter whose training-only structure was not evaluated yet.
 */
export function recordTogether(
  adapters: readonly { readonly name: string; readonly record: AdapterRecord }[],
  nameOf: (member: number, key: string) => string | undefined,
): AdapterRecord {
  const [first] = adapters.map(({ record }) => record) as [AdapterRecord];
  const entries: AdapterRecord['entries'] = [];
  const sites: AdapterSite[] = [];
  for (const [member, { name, record }] of adapters.entries()) {
    if (record.formulas !== undefined)
      fail('E_UNSUPPORTED', {
        message: `The adapter '${name}' has structure that only training needs`,
        remedy: 'Save it first: peft-compile adapter',
      });
    const offset = entries.length;
    entries.push(...record.entries.map((entry) => ({ ...entry, adapter: name })));
    sites.push(
      ...record.sites.map((site) =>
        respelt(site, site.entry + offset, (key) => ({
          key: keyOf(name, key),
          name: nameOf(member, key) ?? keyOf(name, key),
        })),
      ),
    );
  }
  const bases = new Set(adapters.map(({ record }) => record.base));
  return {
    version: 2,
    entries,
    seed: first.seed,
    ...(bases.size === 1 && first.base !== undefined ? { base: first.base } : {}),
    sites,
  };
}

/** Names of the adapters that a record holds together; none where it is of a single one. */
export function adaptersTogether({ entries }: AdapterRecord): string[] {
  return [...new Set(entries.flatMap(({ adapter }) => (adapter === undefined ? [] : [adapter])))];
}

/** Throws E_UNSUPPORTED for a record of adapters that trained together, wherever one adapter is wanted. */
export function refuseTogether(record: AdapterRecord, where: string): void {
  const [first, ...others] = adaptersTogether(record);
  if (first === undefined) return;
  fail('E_UNSUPPORTED', {
    message: `There are several adapters that train together: ${[first, ...others].join(', ')}`,
    where,
    remedy: `Take one of them: peft-compile adapter combined.onnx --checkpoint run/adapter.safetensors --take ${first} -o ${first}.safetensors`,
  });
}

/** One adapter of a record, and its tensors. Throws E_NO_MATCH when none has the name. */
export function takeAdapter<T>(
  record: AdapterRecord,
  tensors: ReadonlyMap<string, T>,
  name: string,
): { record: AdapterRecord; tensors: Map<string, T> } {
  const known = adaptersTogether(record);
  if (!known.includes(name))
    fail('E_NO_MATCH', {
      message: `No adapter '${name}' was trained here`,
      remedy: known.length === 0 ? 'It was a run of one adapter: leave --take away' : didYouMean(name, known),
    });
  const own = record.entries.flatMap(({ adapter }, index) => (adapter === name ? [index] : []));
  const plain = (key: string) => key.slice(keyOf(name, '').length);
  const sites = record.sites
    .filter(({ entry }) => own.includes(entry))
    .map((site) => respelt(site, own.indexOf(site.entry), (key) => ({ key: plain(key), name: plain(key) })));
  const keys = new Set(
    record.sites
      .filter(({ entry }) => own.includes(entry))
      .flatMap(({ params }) => Object.values(params).map(({ key }) => key)),
  );
  return {
    record: {
      ...record,
      entries: own.map((index) => {
        const { adapter: _adapter, ...entry } = record.entries[index] as AdapterRecord['entries'][number];
        return entry;
      }),
      sites,
    },
    tensors: new Map([...tensors].flatMap(([key, tensor]) => (keys.has(key) ? [[plain(key), tensor]] : []))),
  };
}

function keyOf(adapter: string, key: string): string {
  return `${adapter}.${key}`;
}

function respelt(
  site: AdapterSite,
  entry: number,
  spelling: (key: string) => { readonly key: string; readonly name: string },
): AdapterSite {
  const params = Object.entries(site.params).map(([role, param]) => [
    role,
    { ...param, ...spelling(param.key) },
  ]);
  return { ...site, entry, params: Object.fromEntries(params) };
}
