/**
 * Which sites a method goes to, by PEFT's rules (`target_modules`, `exclude_modules`, `layers_to_transform`,
 * `layers_pattern`, `rank_pattern`, `alpha_pattern`, `modules_to_save`), so that a configuration means the same here.
 * Source of the rules: peft 0.21, `tuners_utils.check_target_module_exists`, `utils.other.get_pattern_key`.
 */
import { z } from 'zod';
import { fail } from '../../src/errors.js';
import { didYouMean } from '../../src/nearest.js';
import { describeIssues } from '../../src/zod-issues.js';
import { outputHeads } from './heads.js';
import { fullMatch, pythonRegex } from './python-regex.js';
import type { Site } from './site.js';

const names = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]);
const indices = z.union([z.int().min(0), z.array(z.int().min(0))]);

export const targetingSchema = z.strictObject({
  targets: names.describe(
    "Modules to adapt: a list of names or path endings and of roles ('role:query', 'role:up'), one regular expression for whole paths, 'all-linear' (PEFT target_modules), or 'all' for every place of the method's kind",
  ),
  exclude: names.optional().describe('Modules to leave out, by the same rules (PEFT exclude_modules)'),
  layers: indices
    .optional()
    .describe('Only layers of these indices (PEFT layers_to_transform; not with a regular expression)'),
  layersPattern: names
    .optional()
    .describe('Name of the list of layers, where paths hold several numbers (PEFT layers_pattern)'),
  rankPattern: z
    .record(z.string(), z.int().min(1))
    .optional()
    .describe('Rank by module: regular expressions for path endings (PEFT rank_pattern)'),
  alphaPattern: z
    .record(z.string(), z.number())
    .optional()
    .describe('Alpha by module: regular expressions for path endings (PEFT alpha_pattern)'),
  modulesToSave: z
    .array(z.string().min(1))
    .optional()
    .describe('Modules trained in full elsewhere and therefore never adapted (PEFT modules_to_save)'),
});

/** Targeting options; `targets` is all that is needed. */
export type Targeting = z.input<typeof targetingSchema>;

/** A site and what the patterns set for it: entries of the method's configuration. */
export interface SelectedSite {
  readonly site: Site;
  readonly overrides: Readonly<Record<string, unknown>>;
}

/**
 * The sites that `targeting` names, in model order. Beside PEFT's names, `all` is every site offered, and `role:<role>`
 * the linears or blocks with that role (`role:query`, `role:down`, `role:attention`), alone or in a list. Every call of a module is selected with it; a column range of a
 * packed linear only by its own name, and never beside its whole. Throws E_NO_MATCH when a target, an exclusion or a
 * pattern matches nothing, E_USAGE when a regular expression or a combination is wrong.
 * @param others sites that are not offered, for messages about names that mean one of them
 */
export function selectSites(
  sites: readonly Site[],
  targeting: Targeting,
  others: readonly Site[] = [],
): SelectedSite[] {
  const parsed = targetingSchema.safeParse(targeting);
  if (!parsed.success)
    return fail('E_USAGE', { message: `Targeting does not fit: ${describeIssues(parsed.error)}` });
  const options = parsed.data;
  const targeted = sites.filter(targetTest(sites, options.targets, others));
  const kept = targeted.filter(layerTest(options)).filter(not(excludeTest(sites, options)));
  const wholes = new Set(kept.map(({ path }) => path));
  const selected = kept.filter((site) => site.kind !== 'linear' || !wholes.has(site.packedIn ?? ''));
  if (selected.length === 0)
    return fail('E_NO_MATCH', {
      message: 'No module is left after exclusions and layer selection',
      where: `${targeted.length} matched targets`,
      remedy: 'Widen exclude or layers',
    });
  const rank = overrideOf(selected, options.rankPattern, 'rank pattern');
  const alpha = overrideOf(selected, options.alphaPattern, 'alpha pattern');
  return selected.map((site) => {
    const overrides: Record<string, unknown> = {};
    const [ownRank, ownAlpha] = [rank(site), alpha(site)];
    if (ownRank !== undefined) overrides.rank = ownRank;
    if (ownAlpha !== undefined) overrides.alpha = ownAlpha;
    return { site, overrides };
  });
}

type Test = (site: Site) => boolean;

/** The module path that patterns see: calls of one module share it. */
export function modulePath({ path, callOf }: Site): string {
  return callOf ?? path;
}

const not =
  (test: Test): Test =>
  (site) =>
    !test(site);

function targetTest(
  sites: readonly Site[],
  targets: string | readonly string[],
  others: readonly Site[],
): Test {
  if (typeof targets === 'string' && targets.toLowerCase() === 'all-linear') {
    const heads = outputHeads(sites);
    return (site) =>
      site.kind === 'linear' && site.packedIn === undefined && site.patches !== true && !heads.has(site.path);
  }
  if (targets === 'all') return (site) => site.kind !== 'linear' || site.packedIn === undefined;
  const list = typeof targets === 'string' && roleOf(targets) === undefined ? targets : [targets].flat();
  if (typeof list === 'string') return namesTest(sites, list, 'Target', others);
  const names = list.filter((name) => roleOf(name) === undefined);
  const named = names.length === 0 ? undefined : namesTest(sites, names, 'Target', others);
  const ofRole = roleTest(
    sites,
    list.flatMap((name) => roleOf(name) ?? []),
  );
  return (site) => named?.(site) === true || ofRole(site);
}

const ROLE = 'role:';

/** The role that a target names. */
function roleOf(target: string): string | undefined {
  return target.startsWith(ROLE) ? target.slice(ROLE.length) : undefined;
}

/** Places by what they are for. A model need not have all of the roles, but one of them. */
function roleTest(sites: readonly Site[], wanted: readonly string[]): Test {
  const role = (site: Site) => ('role' in site ? site.role : undefined);
  const known = new Set(sites.map(role).filter((name) => name !== undefined));
  const [first] = wanted;
  if (first !== undefined && !wanted.some((name) => known.has(name as never)))
    fail('E_NO_MATCH', {
      message: `No module of the model is known to be ${wanted.map((name) => `'${name}'`).join(' or ')}`,
      remedy:
        known.size === 0
          ? 'Name the modules instead: no structure of a transformer was found'
          : `It has ${[...known].map((name) => ROLE + name).join(', ')}; or name modules`,
    });
  return (site) => wanted.includes(role(site) ?? '');
}

/** PEFT's two ways of naming modules; every name has to match something. */
function namesTest(
  sites: readonly Site[],
  wanted: string | readonly string[],
  what: string,
  others: readonly Site[] = [],
): Test {
  const paths = [...new Set(sites.map(modulePath))];
  const tests =
    typeof wanted === 'string'
      ? [{ name: wanted, test: (path: string) => fullMatch(wanted).test(path) }]
      : wanted.map((name) => ({ name, test: (path: string) => path === name || path.endsWith(`.${name}`) }));
  for (const { name, test } of tests)
    if (!paths.some(test)) {
      const kinds = [...new Set(others.filter((site) => test(modulePath(site))).map(({ kind }) => kind))];
      if (kinds.length > 0)
        fail('E_NO_MATCH', {
          message: `${what} '${name}' matches ${kinds.join(' and ')} modules alone, which the method does not adapt`,
          remedy: `It adapts ${[...new Set(sites.map(({ kind }) => kind))].join(' and ')} modules; peft-compile methods says which method adapts ${kinds.join(' and ')}`,
        });
      fail('E_NO_MATCH', {
        message: `${what} '${name}' matches no module`,
        remedy: didYouMean(name, endings(paths, name)),
      });
    }
  return (site) => tests.some(({ test }) => test(modulePath(site)));
}

/** Path endings with as many components as `name` has: what a user who mistyped a name would have typed. */
function endings(paths: readonly string[], name: string): string[] {
  const depth = name.split('.').length;
  return paths.map((path) => path.split('.').slice(-depth).join('.'));
}

type Options = z.output<typeof targetingSchema>;

function excludeTest(sites: readonly Site[], { exclude, modulesToSave }: Options): Test {
  const excluded = exclude === undefined ? undefined : namesTest(sites, exclude, 'Exclusion');
  const saved = (modulesToSave ?? []).map((name) =>
    pythonRegex(name, (source) => `^(?:|.*\\.)(?:${source})(?:$|\\..*)`),
  );
  return (site) => excluded?.(site) === true || saved.some((pattern) => pattern.test(modulePath(site)));
}

function isKeyword(targets: string): boolean {
  return ['all', 'all-linear'].includes(targets.toLowerCase()) || roleOf(targets) !== undefined;
}

function layerTest({ targets, layers, layersPattern }: Options): Test {
  const wanted = layers === undefined ? [] : [layers].flat();
  if (wanted.length === 0) return () => true;
  if (typeof targets === 'string' && !isKeyword(targets))
    return fail('E_USAGE', {
      message: 'Layers cannot be selected beside a regular expression',
      remedy: 'Give targets as a list, or put the layers into the regular expression',
    });
  const given = layersPattern === undefined ? [] : [layersPattern].flat();
  // The first number wins, as experts and the like are numbered further inside.
  const patterns =
    given.length === 0
      ? [/^.*?\.[^.]*\.(\d+)\./]
      : given.map((name) => pythonRegex(name, (source) => `^(?:|.*?\\.)(?:${source})\\.(?<layer>\\d+)\\.`));
  return (site) => {
    for (const pattern of patterns) {
      const match = pattern.exec(modulePath(site));
      if (match !== null) return wanted.includes(Number(match.groups?.layer ?? match[1]));
    }
    return false;
  };
}

/** The value of the first pattern whose regular expression matches the end of a path at a component. */
function overrideOf(
  selected: readonly Site[],
  patterns: Readonly<Record<string, number>> | undefined,
  what: string,
): (site: Site) => number | undefined {
  const compiled = Object.entries(patterns ?? {}).map(([key, value]) => ({
    key,
    value,
    regex: pythonRegex(key, (source) => `^(?:.*\\.)?(?:${source})$`),
  }));
  const paths = [...new Set(selected.map(modulePath))];
  for (const { key, regex } of compiled)
    if (!paths.some((path) => regex.test(path)))
      fail('E_NO_MATCH', {
        message: `The ${what} '${key}' matches no selected module`,
        remedy: didYouMean(key, endings(paths, key)),
      });
  return (site) => compiled.find(({ regex }) => regex.test(modulePath(site)))?.value;
}
