/** The presets that ship with the package, and the way from what a user names to methods. */
import { fail } from '../../src/errors.js';
import { didYouMean } from '../../src/nearest.js';
import type { EntryTargeting, InsertEntry, ResolvedEntry } from '../insert/entry.js';
import { type Configurable, configure } from '../methods/contract/configurable.js';
import type { Method } from '../methods/contract/method.js';
import houlsby from '../methods/houlsby.js';
import pfeiffer from '../methods/pfeiffer.js';
import { METHODS, resolveMethod } from '../methods/registry.js';
import attentionOnly from './attention-only.js';
import mam from './mam.js';
import type { Preset } from './preset.js';
import unipelt from './unipelt.js';
import { withNorms } from './with-norms.js';

export const PRESETS: readonly Preset[] = [
  mam,
  unipelt,
  withNorms(houlsby),
  withNorms(pfeiffer),
  attentionOnly,
];

/** Methods and presets of one's own. */
export interface Own {
  readonly methods?: readonly Method[] | undefined;
  readonly presets?: readonly Preset[] | undefined;
}

/** Ids that a user can name. */
export function knownIds({ methods = [], presets = [] }: Own = {}): string[] {
  const chosen = [...methods, ...METHODS].filter(({ internal }) => internal === undefined);
  return [...chosen, ...presets, ...PRESETS].map(({ id }) => id);
}

/** The method or preset of an id, of one's own first. Throws E_NO_MATCH with the nearest id; `where` is the place that names it. */
export function resolveNamed(
  id: string,
  own: Own = {},
  where?: string,
): { readonly method: Method } | { readonly preset: Preset } {
  const preset = findPreset(id, own);
  if (preset !== undefined) return { preset };
  const method = [...(own.methods ?? []), ...METHODS].find((candidate) => candidate.id === id);
  if (method === undefined)
    return fail('E_NO_MATCH', {
      message: `There is no method or preset '${id}'`,
      ...(where === undefined ? {} : { where }),
      remedy: `${didYouMean(id, knownIds(own))} See peft-compile methods`,
    });
  if (method.internal !== undefined)
    return fail('E_USAGE', {
      message: `${id} cannot be chosen by name: ${method.internal}`,
      remedy: 'See peft-compile methods',
    });
  return { method };
}

/** What has the settings of an entry. */
export function configurableOf(method: Method | string, own: Own = {}, where?: string): Configurable {
  if (typeof method !== 'string') return method;
  const named = resolveNamed(method, own, where);
  return 'preset' in named ? named.preset : named.method;
}

function findPreset(id: string, { methods = [], presets = [] }: Own): Preset | undefined {
  if (methods.some((method) => method.id === id)) return undefined;
  return [...presets, ...PRESETS].find((preset) => preset.id === id);
}

/**
 * Entries with their methods found; a preset becomes the entries that it stands for. Throws E_USAGE for a bad
 * configuration and for an empty list, E_NO_MATCH for an unknown id.
 */
export function expandEntries(entries: readonly InsertEntry[], own: Own = {}): ResolvedEntry[] {
  if (entries.length === 0)
    return fail('E_USAGE', {
      message: 'The composition is empty: no method is named',
      remedy: 'Name one, such as lora; see peft-compile methods',
    });
  return entries.flatMap((entry): ResolvedEntry[] => {
    const { method } = entry;
    if (typeof method !== 'string') return [{ ...entry, method }];
    const named = resolveNamed(method, own);
    if ('method' in named) return [{ ...entry, method: named.method }];
    return partsOf(named.preset, entry).map((part) => ({
      ...part,
      method: resolveMethod(part.method, own.methods),
    }));
  });
}

function partsOf(preset: Preset, { config, targeting = {} }: InsertEntry): InsertEntry[] {
  const parts = preset.entries(configure(preset, config ?? {}));
  const { targets, rankPattern, alphaPattern, ...restriction } = targeting;
  if (targets !== undefined || rankPattern !== undefined || alphaPattern !== undefined)
    fail('E_USAGE', {
      message: `${preset.id} chooses the modules of its methods itself`,
      remedy: `Leave modules out with exclude or layers, or insert its methods one by one: ${parts.map((part) => idOf(part)).join(', ')}`,
    });
  return parts.map((part) => ({
    ...part,
    targeting: { ...part.targeting, ...restriction } satisfies EntryTargeting,
  }));
}

function idOf({ method }: InsertEntry): string {
  return typeof method === 'string' ? method : method.id;
}
