/** The composition that a command line and a config file ask for: entries of `insert`, flags laid over the file's. */
import type { EntryTargeting, InsertEntry } from '../../passes/insert/entry.js';
import { savedModules } from '../../passes/insert/saved-modules.js';
import { settingsOf } from '../../passes/methods/contract/configurable.js';
import { configurableOf } from '../../passes/presets/registry.js';
import { fail } from '../errors.js';
import { didYouMean } from '../nearest.js';
import type { UserConfig } from './config.js';

export interface CompositionFlags {
  readonly method?: readonly string[];
  readonly targets?: readonly string[];
  readonly regex?: string;
  readonly exclude?: string[];
  readonly layers?: number[];
  readonly rank?: number;
  readonly alpha?: number;
  readonly rslora?: boolean;
  readonly dropout?: number;
  readonly set?: Readonly<Record<string, unknown>>;
  readonly rankPattern?: Record<string, number>;
  readonly alphaPattern?: Record<string, number>;
  readonly modulesToSave?: readonly string[];
}

/** What is inserted where neither the command line nor a config file says it. */
const DEFAULT_METHOD = 'lora';

/** An entry with what flags can address in it. */
interface Part {
  readonly id: string;
  readonly settings: readonly string[];
  readonly entry: InsertEntry;
}

/**
 * Methods named by flags, else those of the config file, else LoRA. Settings go to every method that has them, or to the
 * one that a prefix names (`--set lora.rank=4`); targets to all, or to one (`--targets lora:query`). Throws E_USAGE for a
 * setting that no method has.
 */
export function compose(flags: CompositionFlags, user: UserConfig): InsertEntry[] {
  const named = flags.method?.map((method): InsertEntry => ({ method }));
  const entries = named ?? user.entries ?? [{ method: DEFAULT_METHOD }];
  const parts = entries.map((entry): Part => {
    const configurable = configurableOf(entry.method, user);
    return { id: configurable.id, settings: settingsOf(configurable), entry };
  });
  const settings = settingsByPart(parts, flags);
  const saved = [...(flags.modulesToSave ?? user.modulesToSave)];
  const composed = parts.map((part, index): InsertEntry => {
    const config = { ...part.entry.config, ...settings[index] };
    return {
      method: part.entry.method,
      config,
      targeting: {
        ...part.entry.targeting,
        ...targetingOf(part, parts, flags),
        ...(saved.length === 0 ? {} : { modulesToSave: saved }),
      },
    };
  });
  if (saved.length > 0) composed.push(savedModules(saved));
  return composed;
}

/** Settings given on the command line, by part. */
function settingsByPart(parts: readonly Part[], flags: CompositionFlags): Record<string, unknown>[] {
  const { rank, alpha, rslora, dropout, set } = flags;
  const given = Object.entries({ rank, alpha, rslora, dropout, ...set }).filter(
    ([, value]) => value !== undefined,
  );
  const result = parts.map((): Record<string, unknown> => ({}));
  for (const [name, value] of given) {
    const { part, rest: key } = addressed(name, '.', parts);
    const takers = parts.filter((candidate) =>
      // A single method answers for itself, with the list of what it has.
      part === undefined ? parts.length === 1 || candidate.settings.includes(key) : candidate.id === part,
    );
    if (takers.length === 0)
      fail('E_USAGE', {
        message: `None of ${parts.map(({ id }) => id).join(', ')} has a setting '${key}'`,
        remedy: didYouMean(
          key,
          parts.flatMap((candidate) => candidate.settings),
        ),
      });
    for (const taker of takers) Object.assign(result[parts.indexOf(taker)] ?? {}, { [key]: value });
  }
  return result;
}

function targetingOf(part: Part, parts: readonly Part[], flags: CompositionFlags): EntryTargeting {
  const { regex, exclude, layers, rankPattern, alphaPattern } = flags;
  const own = (flags.targets ?? []).flatMap((target) => {
    const address = addressed(target, ':', parts);
    return address.part === undefined || address.part === part.id ? [address.rest] : [];
  });
  const targets = regex ?? keywordOr(own);
  const takes = (setting: string) => parts.length === 1 || part.settings.includes(setting);
  return {
    ...(targets === undefined ? {} : { targets }),
    ...(exclude === undefined ? {} : { exclude }),
    ...(layers === undefined ? {} : { layers }),
    ...(rankPattern === undefined || !takes('rank') ? {} : { rankPattern }),
    ...(alphaPattern === undefined || !takes('alpha') ? {} : { alphaPattern }),
  };
}

/** A keyword stands alone and as a string: in a list it would be the name of a module. */
function keywordOr(targets: string[]): string | string[] | undefined {
  const [only] = targets;
  if (only === undefined) return undefined;
  return targets.length === 1 && /^(all|all-linear)$/i.test(only) ? only.toLowerCase() : targets;
}

/** `lora.rank`, `lora:query`: what is meant for one of the parts. */
function addressed(
  text: string,
  separator: string,
  parts: readonly Part[],
): { readonly part?: string; readonly rest: string } {
  const at = text.indexOf(separator);
  const id = text.slice(0, Math.max(at, 0));
  return parts.some((part) => part.id === id) ? { part: id, rest: text.slice(at + 1) } : { rest: text };
}
