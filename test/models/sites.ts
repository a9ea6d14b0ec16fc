/** Sites of a model against torch's own list of modules. */
import { findSites } from '../../passes/sites/index.js';
import type { Site, SiteKind } from '../../passes/sites/site.js';
import type { Model } from '../../src/model.js';
import type { TorchModule } from '../helpers/fixtures.js';
import type { CheckedFixture } from './fixtures.js';

export interface SiteCheck {
  readonly sites: readonly Site[];
  readonly kinds: Readonly<Partial<Record<SiteKind, number>>>;
  /** Linears and tables of torch that the file holds: how many, and how many of them have a site with that path and sizes. */
  readonly modules: number;
  readonly exact: number;
  /** `path: what is wrong`, where a module has no site, or one of other sizes. */
  readonly wrong: readonly string[];
  /** Of the tables that may be folded, those that are. */
  readonly absent: readonly string[];
  /** Paths of weight sites that torch has no module for. */
  readonly extra: readonly string[];
  /** Linears and tables of the graph. */
  readonly found: number;
}

export function checkSites(
  model: Model,
  { modules = [], absent = [], unfound = {}, paths = {} }: CheckedFixture,
): SiteCheck {
  const sites = findSites(model, { paths: new Map(Object.entries(paths)) });
  const kinds: Partial<Record<SiteKind, number>> = {};
  const whole = sites.filter((site) => site.kind !== 'linear' || site.packedIn === undefined);
  for (const { kind, callOf } of whole) if (callOf === undefined) kinds[kind] = (kinds[kind] ?? 0) + 1;
  const byPath = new Map(sites.map((site) => [`${keyKind(site.kind)} ${site.path}`, site]));
  const gone = absent.filter((path) => !byPath.has(`weight ${path}`));
  const expected = modules.filter(({ path }) => !gone.includes(path) && unfound[path] === undefined);
  const wanted = expected.filter((module) => weightOf(module) !== undefined);
  const wrong = wanted.flatMap((module): string[] => {
    const weight = weightOf(module);
    const site = byPath.get(`weight ${module.path}`);
    if (site === undefined) return [`${module.path}: no site`];
    const sizes =
      site.kind === 'linear'
        ? [site.inDim, site.outDim]
        : site.kind === 'embedding'
          ? [site.vocab, site.dim]
          : [];
    const other = weight?.kind !== site.kind || weight.dims.some((dim, i) => dim !== sizes[i]);
    if (other)
      return [
        `${module.path}: ${site.kind} [${sizes.join(', ')}] for ${module.kind} [${weight?.dims.join(', ')}]`,
      ];
    const bias = site.kind === 'linear' && site.y !== undefined && (site.bias !== undefined) !== module.bias;
    return bias ? [`${module.path}: ${module.bias ? 'without its bias' : 'with a bias'}`] : [];
  });
  const norms = expected.filter(({ weightShape, kind }) => weightShape.length === 1 && /norm/i.test(kind));
  for (const { path } of norms) if (!byPath.has(`norm ${path}`)) wrong.push(`${path}: no norm`);
  const known = new Set(modules.map(({ path }) => path));
  const weights = whole.filter(({ kind }) => kind === 'linear' || kind === 'embedding');
  return {
    sites,
    kinds,
    modules: wanted.length + norms.length,
    exact: wanted.length + norms.length - new Set(wrong.map((text) => text.split(':')[0])).size,
    wrong,
    absent: gone,
    extra: weights.map(({ path, callOf }) => callOf ?? path).filter((path) => !known.has(path)),
    found: weights.length,
  };
}

const keyKind = (kind: SiteKind): string => (kind === 'linear' || kind === 'embedding' ? 'weight' : kind);

/** What a module of torch is as a site; undefined for norms and for weights that are no matrix. */
function weightOf({
  inDim,
  outDim,
  rows,
  columns,
  kind,
}: TorchModule): { readonly kind: SiteKind; readonly dims: readonly number[] } | undefined {
  if (inDim !== undefined && outDim !== undefined) return { kind: 'linear', dims: [inDim, outDim] };
  if (rows !== undefined && columns !== undefined && /Embedding/.test(kind))
    return { kind: 'embedding', dims: [rows, columns] };
  return undefined;
}
