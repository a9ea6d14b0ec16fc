/** The rows of the site table. */
import { outputHeads } from '../sites/heads.js';
import { payloadOf } from '../sites/payload.js';
import type { WeightSite } from '../sites/site.js';
import { matrixOf } from './matrix.js';
import type { SiteInfo } from './report.js';
import { readersOf, sitesByWeight } from './shared.js';

/** A guess of this confidence is trusted when it stands alone, so a contradiction is worth a look. */
const TRUSTED = 0.6;

/** Guesses, good enough on their own, for another path than the site's. */
export function conflictsOf(site: WeightSite, sites: readonly WeightSite[]): string[] {
  const own = site.callOf ?? site.path;
  // A part of a packed weight has the guesses of its whole.
  if (matrixOf(site).packedIn !== undefined) return [];
  // A tied weight has the name of one of its modules: a table named after the head contradicts nothing.
  const tied = new Set(sites.filter(({ kind }) => kind !== site.kind).map(({ path }) => path));
  const others = site.guesses.filter(
    ({ confidence, path }) => confidence >= TRUSTED && path !== own && !tied.has(path),
  );
  return [...new Set(others.map(({ path, source }) => `${path} by ${source}`))];
}

export function siteRows(sites: readonly WeightSite[]): SiteInfo[] {
  const heads = outputHeads(sites);
  const groups = sitesByWeight(sites);
  return sites.map((site) => {
    const { rows, columns, layouts, bias, packedIn } = matrixOf(site);
    return {
      path: site.path,
      kind: site.kind,
      op: site.node.qualifiedOp,
      node: site.node.name ?? '',
      rows,
      columns,
      dtype: site.dtype,
      storedDtype: payloadOf(site.weight.value)?.dtype ?? null,
      layout: layouts[site.weight.transposed ? 1 : 0],
      storage: site.weight.storage,
      weight: site.weight.value.label,
      bias: bias?.value.label ?? null,
      tap: site.y === undefined ? 'weight' : 'output',
      confidence: site.confidence,
      source: site.source,
      guesses: site.guesses,
      conflicts: conflictsOf(site, sites),
      packedIn: packedIn ?? null,
      callOf: site.callOf ?? null,
      sharedWith: sharedWith(site, groups.get(site.weight.value) ?? []),
      head: heads.has(site.path),
    };
  });
}

function sharedWith(site: WeightSite, group: readonly WeightSite[]): string[] {
  const nodes = new Set(group.map(({ node }) => node));
  return [
    ...group.filter(({ node }) => node !== site.node).map(({ path }) => path),
    ...readersOf(site.weight.value)
      .filter((node) => !nodes.has(node))
      .map(({ label }) => label),
  ];
}
