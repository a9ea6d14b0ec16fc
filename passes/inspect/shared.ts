/** Weights with several readers, and weights that look like copies. */
import type { Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { isFloat } from '../../src/types.js';
import { linkOf } from '../sites/links/index.js';
import type { WeightSite } from '../sites/site.js';
import { matrixOf } from './matrix.js';
import { constants } from './parameters.js';
import type { SharedWeight, SharingKind } from './report.js';

/** Nodes that read a constant, through Identity, Transpose and the like. */
export function readersOf(value: Value): Node[] {
  const readers: Node[] = [];
  for (const use of value.uses) {
    if (use.kind !== 'node') continue;
    const output = use.index === 0 && linkOf(use.node) !== undefined ? use.node.outputs[0] : undefined;
    readers.push(...(output === null || output === undefined ? [use.node] : readersOf(output)));
  }
  return [...new Set(readers)].sort((a, b) => a.id - b.id);
}

/** Whole sites by the weight they read. */
export function sitesByWeight(sites: readonly WeightSite[]): Map<Value, WeightSite[]> {
  const groups = new Map<Value, WeightSite[]>();
  for (const site of sites) {
    if (matrixOf(site).packedIn !== undefined) continue;
    const group = groups.get(site.weight.value);
    if (group === undefined) groups.set(site.weight.value, [site]);
    else group.push(site);
  }
  return groups;
}

export function sharedWeights(model: Model, sites: readonly WeightSite[]): SharedWeight[] {
  const bySite = sitesByWeight(sites);
  const found: SharedWeight[] = [];
  for (const [value, tensor] of constants(model)) {
    if (tensor.dims.length === 0 || !isFloat(tensor.dtype)) continue;
    const readers = readersOf(value);
    if (readers.length < 2) continue;
    const readingSites = bySite.get(value) ?? [];
    found.push({
      weight: value.label,
      dims: tensor.dims,
      kind: sharingKind(readingSites, readers),
      readers:
        readingSites.length === readers.length
          ? readingSites.map(({ path }) => path)
          : readers.map(({ label }) => label),
    });
  }
  return [...found, ...untiedCopies(sites)];
}

function sharingKind(sites: readonly WeightSite[], readers: readonly Node[]): SharingKind {
  if (sites.length < readers.length || sites.length === 0)
    return sites.length === 0 ? 'deduplicated' : 'tied';
  return sites.slice(1).every((site) => site.callOf !== undefined) ? 'reused' : 'tied';
}

/** Heads that hold the transpose of a table: exporters fold the Transpose of a tied weight into a copy. */
function untiedCopies(sites: readonly WeightSite[]): SharedWeight[] {
  const tables = sites.filter((site) => site.kind === 'embedding');
  const linears = sites.filter((site) => site.kind === 'linear');
  return tables.flatMap((table) =>
    linears
      .filter(
        ({ weight, inDim, outDim }) =>
          weight.value !== table.weight.value &&
          inDim === table.dim &&
          outDim === table.vocab &&
          table.vocab !== table.dim,
      )
      .map((head) => ({
        weight: head.weight.value.label,
        dims: [table.vocab, table.dim],
        kind: 'untied',
        readers: [table.path, head.path],
      })),
  );
}
