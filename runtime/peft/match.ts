/**
 * Which site of a graph each module of a PEFT file is. Names decide where they agree; where they do not, every strategy
 * has to place all remaining modules at once, each at a site of its own that takes its tensors, in one way only.
 * Nothing is guessed: what stays open is an error that lists the candidates.
 */

import type { Site } from '../../passes/sites/site.js';
import { modulePath } from '../../passes/sites/targeting.js';
import { fail } from '../../src/errors.js';
import { nearest } from '../../src/nearest.js';
import type { StoredModule } from './keys.js';
import { byPrefix } from './match-prefix.js';
import { byRole } from './match-role.js';
import { bySignature } from './match-signature.js';

/** What matching asks of a module: where it is in PEFT, and whether a site could take its tensors. */
export interface Wanted {
  readonly path: string;
  fits(site: Site): boolean;
  /** What does not fit. */
  misfit(site: Site): string | undefined;
}

/**
 * A way of placing modules. Returns sites by path, one of its own for each; several ways are an ambiguity. Ways that
 * compare names place all modules or none.
 */
export type Strategy = (
  wanted: readonly Wanted[],
  /** Those that are left. */
  free: readonly Site[],
  all: readonly Site[],
) => Placement | { readonly ambiguous: string } | undefined;

export type Placement = ReadonlyMap<string, Site>;

export interface MatchOptions {
  /** Graph module by PEFT module, or by the beginning of its path. */
  readonly map?: Readonly<Record<string, string>>;
  /** Further evidence, ahead of names that only resemble each other: values of the base's weights. */
  readonly evidence?: Strategy;
  readonly where: string;
}

/** The sites of modules. Throws E_NO_MATCH for those that have none or several. */
export function matchModules(
  modules: readonly (StoredModule & Wanted)[],
  found: readonly Site[],
  { map = {}, evidence, where }: MatchOptions,
): Map<StoredModule, Site> {
  const sites = found.filter(({ callOf }) => callOf === undefined);
  const placed = new Map<string, Site>();
  const wanted = distinct(modules);
  for (const module of wanted) {
    const path = mapped(module.path, map);
    const site = sites.find((one) => modulePath(one) === path && module.fits(one));
    if (site !== undefined) placed.set(module.path, site);
    else if (path !== module.path) noSuchTarget(module, path, sites, where);
  }
  const strategies: Strategy[] = [
    ...(evidence === undefined ? [] : [evidence]),
    byPrefix,
    bySignature,
    byRole,
  ];
  const reasons: string[] = [];
  for (const strategy of strategies) {
    const open = wanted.filter(({ path }) => !placed.has(path));
    if (open.length === 0) break;
    const taken = new Set(placed.values());
    const result = strategy(
      open,
      sites.filter((site) => !taken.has(site)),
      sites,
    );
    if (result === undefined) continue;
    if ('ambiguous' in result) reasons.push(result.ambiguous);
    else for (const [path, site] of result) placed.set(path, site);
  }
  const open = wanted.filter(({ path }) => !placed.has(path));
  if (open.length > 0) unmatched(open, sites, reasons, where);
  return new Map(modules.map((module) => [module, placed.get(module.path) as Site]));
}

/** Modules by path; a site has to fit whatever a path stands for. */
function distinct(modules: readonly Wanted[]): Wanted[] {
  const byPath = new Map<string, Wanted[]>();
  for (const module of modules) byPath.set(module.path, [...(byPath.get(module.path) ?? []), module]);
  return [...byPath].map(([path, all]) => ({
    path,
    fits: (site) => all.every((one) => one.fits(site)),
    misfit: (site) => all.map((one) => one.misfit(site)).find((text) => text !== undefined),
  }));
}

/** A path with the longest beginning that the map names replaced. */
export function mapped(path: string, map: Readonly<Record<string, string>>): string {
  const [best] = Object.keys(map)
    .filter((from) => path === from || path.startsWith(`${from}.`))
    .sort((a, b) => b.length - a.length);
  if (best === undefined) return path;
  const to = map[best] as string;
  const rest = path.slice(best.length);
  return to === '' ? rest.slice(1) : to + rest;
}

function noSuchTarget(module: Wanted, path: string, sites: readonly Site[], where: string): never {
  return fail('E_NO_MATCH', {
    message: `The map sends '${module.path}' to '${path}', which is no module of the model that its tensors fit`,
    where,
    remedy: candidatesOf({ ...module, path }, sites),
  });
}

function unmatched(
  open: readonly Wanted[],
  sites: readonly Site[],
  reasons: readonly string[],
  where: string,
): never {
  const shown = open.slice(0, 3).map((module) => `'${module.path}': ${candidatesOf(module, sites)}`);
  const more = open.length > shown.length ? ` (and ${open.length - shown.length} more)` : '';
  return fail('E_NO_MATCH', {
    message: `${open.length} modules of the adapter have no counterpart in the model${more}. ${[...reasons, ...shown].join('. ')}`,
    where,
    remedy:
      'Check that this is the base of the adapter; or say which is which: --map map.json with {"module in PEFT": "module in peft-compile inspect"}, or --base-weights with the model.safetensors of the base',
  });
}

/** The nearest names among sites that the tensors fit. */
function candidatesOf(module: Wanted, sites: readonly Site[]): string {
  const namesake = sites.find(
    (site) => modulePath(site) === module.path && module.misfit(site) !== undefined,
  );
  if (namesake !== undefined) return `the model has it, but ${module.misfit(namesake)}`;
  const paths = sites.filter((site) => module.fits(site)).map(modulePath);
  if (paths.length === 0) return 'no module of the model has its sizes';
  return `of its sizes are ${nearest(module.path, paths, 4)
    .map((path) => `'${path}'`)
    .join(', ')}`;
}
