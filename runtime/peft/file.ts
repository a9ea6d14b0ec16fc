/** A folder's tensors as formats rearrange them: what they may ask of the graph and of the payloads. */
import type { PeftConfig, PeftFile, PeftTarget } from '../../passes/methods/contract/peft-format.js';
import type { LinearSite, Site } from '../../passes/sites/site.js';
import { modulePath } from '../../passes/sites/targeting.js';
import type { Tensor } from '../../src/tensor.js';
import { loadTensor, numbersOf } from '../host-tensor.js';
import { movedTensor } from './layout.js';
import { mapped } from './match.js';

/** What only the order of the graph names. */
const NAMELESS = 0.5;

/** `sites`: those of the graph that the folder is read for; none where one is written. */
export function peftFile(
  folder: {
    readonly config: PeftConfig;
    readonly tensors: ReadonlyMap<string, Tensor>;
    readonly path: string;
  },
  sites: readonly Site[],
  map: Readonly<Record<string, string>> = {},
): PeftFile {
  return {
    ...folder,
    layers: sites.filter((site) => site.kind === 'sublayer' && site.role === 'attention').length,
    mapped: (path) => mapped(path, map),
    targets: sites.flatMap(targetOf),
    numbers: async (tensor) => Float64Array.from(numbersOf(await loadTensor(tensor))),
    moved: movedTensor,
  };
}

/** Slices of one tensor are one target, told by the first. */
function targetOf(site: Site): PeftTarget[] {
  if (site.kind !== 'linear' || site.callOf !== undefined) return [];
  const { inDim, outDim, weight } = site as LinearSite;
  const { slice, transposed: outFirst } = weight;
  const path = modulePath(site);
  const named = site.confidence > NAMELESS;
  if (slice === undefined) return [{ path, inDim, outDim, count: 1, stacked: false, outFirst, named }];
  if (slice.index > 0) return [];
  const stem = path.replace(/\.0$/, '');
  return [{ path: stem, inDim, outDim, count: slice.count, stacked: true, outFirst, named }];
}
