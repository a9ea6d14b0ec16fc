/** Low-rank adapters of one structure: scales inside the factors, and ranks filled up with zeros to the largest. */
import { type AdapterSite, jsonOf } from '../../passes/adapter-record.js';
import type { Method } from '../../passes/methods/contract/method.js';
import { adapterTensors, factorsAt } from '../../passes/targets/serving.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { byteSize } from '../../src/types.js';
import type { AdapterFile } from '../adapter-file.js';
import { loadTensor } from '../host-tensor.js';
import { unscaledAdapter } from './rescale.js';

/** The adapters; at every module those that have low-rank factors have them of one rank. */
export async function alignRanks(
  adapters: readonly AdapterFile[],
  methods?: readonly Method[],
): Promise<AdapterFile[]> {
  const unscaled = await Promise.all(adapters.map((adapter) => unscaledAdapter(adapter, methods)));
  const ranks = new Map<string, number>();
  for (const { record } of unscaled)
    for (const { site, role, param, method } of adapterTensors(record, methods))
      if (role === factorsAt(method, site)?.left)
        ranks.set(idOf(site), Math.max(ranks.get(idOf(site)) ?? 0, param.shape.at(-1) ?? 0));
  return Promise.all(unscaled.map((adapter) => filledUp(adapter, ranks, methods)));
}

/** Where ranks have to agree: at the same method of a stack. */
function idOf({ kind, path, entry }: AdapterSite): string {
  return `${kind} ${path} ${entry}`;
}

async function filledUp(
  adapter: AdapterFile,
  ranks: ReadonlyMap<string, number>,
  methods: readonly Method[] | undefined,
): Promise<AdapterFile> {
  const tensors = new Map(adapter.tensors);
  const shapes = new Map<AdapterSite, Map<string, readonly number[]>>();
  const configs = new Map<AdapterSite, AdapterSite['config']>();
  for (const { site, role, param, method } of adapterTensors(adapter.record, methods)) {
    const factors = factorsAt(method, site);
    const rank = ranks.get(idOf(site));
    if (factors === undefined || rank === undefined) continue;
    const { left, right } = factors;
    if (role !== left && role !== right) continue;
    const shape = role === left ? [...param.shape.slice(0, -1), rank] : [rank, ...param.shape.slice(1)];
    shapes.set(site, (shapes.get(site) ?? new Map()).set(role, shape));
    configs.set(site, jsonOf(factors.unscaled(site.config, rank)));
    const tensor = tensors.get(param.key);
    if (tensor !== undefined) tensors.set(param.key, await padded(tensor, shape));
  }
  const sites = adapter.record.sites.map((site) => ({
    ...site,
    config: configs.get(site) ?? site.config,
    params: Object.fromEntries(
      Object.entries(site.params).map(([role, param]) => {
        const shape = shapes.get(site)?.get(role);
        return [role, shape === undefined ? param : { ...param, shape: [...shape] }];
      }),
    ),
  }));
  return { ...adapter, record: { ...adapter.record, sites }, tensors };
}

/** A matrix with zeros behind its rows and columns. */
async function padded(tensor: Tensor, shape: readonly number[]): Promise<Tensor> {
  const { dtype, dims } = tensor;
  const [rows = 0, columns = 0] = dims;
  const [wantedRows = 0, wantedColumns = 0] = shape;
  if (rows === wantedRows && columns === wantedColumns) return tensor;
  const { data } = await loadTensor(tensor);
  const bytes = new Uint8Array(byteSize(dtype, wantedRows * wantedColumns));
  const size = byteSize(dtype, columns);
  for (let row = 0; row < rows; row++)
    bytes.set(data.subarray(row * size, (row + 1) * size), row * byteSize(dtype, wantedColumns));
  return tensorOfBytes(dtype, shape, bytes);
}
