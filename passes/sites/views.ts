/**
 * What formulas see of each kind of site: its sizes, and its values with the features on the last axis whatever axis
 * the op keeps them on. One entry per kind; shared code asks the table and not the site.
 */
import type { Value } from '../../src/graph.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { EmbeddingDims, EmbeddingView, LinearDims, LinearView } from '../methods/method.js';
import type { EmbeddingSite, LinearSite, Site, SiteKind } from './site.js';

/** A site ready for a formula. */
export interface OpenSite {
  /** Fields of the kind's view but `w`. */
  readonly view: object;
  /** Puts a new output into the layout of the site's own. */
  restore(y: Value): Value;
}

interface KindView<S extends Site> {
  /** Rows of the weight matrix: the axis a product sums over, or the vocabulary. */
  rows(site: S): number;
  dims(site: S): object;
  open(op: Ops, site: S, y: Value): OpenSite;
}

const linear: KindView<LinearSite> = {
  rows: ({ inDim }) => inDim,
  dims: ({ path, inDim, outDim, dtype }): LinearDims => ({ path, inDim, outDim, dtype }),
  open(op, site, y) {
    const view: Omit<LinearView, 'w'> = {
      ...(linear.dims(site) as LinearDims),
      x: featuresLast(op, site.x, site.xAxis),
      y: featuresLast(op, y, site.yAxis),
    };
    return { view, restore: (value) => featuresBack(op, value, site.yAxis) };
  },
};

const embedding: KindView<EmbeddingSite> = {
  rows: ({ vocab }) => vocab,
  dims: ({ path, vocab, dim, dtype }): EmbeddingDims => ({ path, vocab, dim, dtype }),
  open(_op, site, y) {
    const view: Omit<EmbeddingView, 'w'> = { ...(embedding.dims(site) as EmbeddingDims), ids: site.ids, y };
    return { view, restore: (value) => value };
  },
};

const VIEWS: { readonly [Kind in SiteKind]: KindView<Extract<Site, { kind: Kind }>> } = { linear, embedding };

/** The entry of a site's kind; the table pairs them by type, which a lookup by `kind` cannot express. */
function viewOf(site: Site): KindView<Site> {
  return VIEWS[site.kind] as unknown as KindView<Site>;
}

/** Rows of the weight matrix of a site. */
export function rowsOf(site: Site): number {
  return viewOf(site).rows(site);
}

/** Sizes of a site, as `params` of a method reads them. */
export function dimsOf(site: Site): object {
  return viewOf(site).dims(site);
}

/** Opens a site whose output `y` exists. */
export function openSite(op: Ops, site: Site, y: Value): OpenSite {
  return viewOf(site).open(op, site, y);
}

function featuresLast(op: Ops, value: Value, axis: number): Value {
  const perm = axisLast(rankOf(value), axis);
  return perm === undefined ? value : op.Transpose(value, { perm });
}

function featuresBack(op: Ops, value: Value, axis: number): Value {
  const perm = axisLast(rankOf(value), axis);
  return perm === undefined ? value : op.Transpose(value, { perm: inverse(perm) });
}

/** Permutation that moves `axis` to the end; undefined when it is there already. */
function axisLast(rank: number, axis: number): number[] | undefined {
  const at = axis < 0 ? axis + rank : axis;
  if (at === rank - 1) return undefined;
  return [...Array.from({ length: rank }, (_, i) => i).filter((i) => i !== at), at];
}

function inverse(perm: readonly number[]): number[] {
  const result = new Array<number>(perm.length).fill(0);
  perm.forEach((from, to) => {
    result[from] = to;
  });
  return result;
}

/** Rank of a value; an unknown rank is taken as one whose features are last. */
function rankOf(value: Value): number {
  return value.type?.kind === 'tensor' && value.type.shape !== null ? value.type.shape.length : 1;
}
