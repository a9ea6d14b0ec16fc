/** What the report shows of the matrix of each kind of site that owns one. */
import type { SiteBias, WeightSite } from '../sites/site.js';
import type { SiteInfo } from './report.js';

export interface SiteMatrix {
  readonly rows: number;
  readonly columns: number;
  /** How a payload reads that is the matrix, and one that is its transpose. */
  readonly layouts: readonly [plain: SiteInfo['layout'], transposed: SiteInfo['layout']];
  readonly bias?: SiteBias | undefined;
  /** Path of the module that the matrix is a part of. */
  readonly packedIn?: string | undefined;
}

const MATRICES: {
  readonly [K in WeightSite['kind']]: (site: Extract<WeightSite, { kind: K }>) => SiteMatrix;
} = {
  linear: ({ inDim, outDim, bias, packedIn }) => ({
    rows: inDim,
    columns: outDim,
    layouts: ['[in, out]', '[out, in]'],
    bias,
    packedIn,
  }),
  embedding: ({ vocab, dim }) => ({
    rows: vocab,
    columns: dim,
    layouts: ['[vocab, dim]', '[dim, vocab]'],
  }),
};

/** The entry of a site's kind; the table pairs them by type, which a lookup by `kind` cannot express. */
export function matrixOf(site: WeightSite): SiteMatrix {
  return (MATRICES[site.kind] as (site: WeightSite) => SiteMatrix)(site);
}
