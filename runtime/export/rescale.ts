/** Low-rank adapters with their scale inside the factors, and the numbers that serving graphs are fed. */
import { type AdapterSite, jsonOf } from '../../passes/adapter-record.js';
import type { Method } from '../../passes/methods/contract/method.js';
import { adapterTensors, factorsAt, scaledRoles } from '../../passes/targets/serving.js';
import { encodeNumbers } from '../../src/literals.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import type { DType } from '../../src/types.js';
import type { AdapterFile } from '../adapter.js';
import { loadTensor, numbersOf } from '../host-tensor.js';

/** A tensor times a number in another element type, rounded once; the tensor itself where nothing changes. */
export async function rescaled(tensor: Tensor, factor: number, dtype: DType): Promise<Tensor> {
  if (factor === 1 && tensor.dtype === dtype) return tensor;
  const numbers = Float64Array.from(numbersOf(await loadTensor(tensor)), (value) => value * factor);
  return tensorOfBytes(dtype, tensor.dims, encodeNumbers(dtype, numbers));
}

/** The adapter with every scale 1 and the factors s·B in its place; other methods as they are. */
export async function unscaledAdapter(
  adapter: AdapterFile,
  methods?: readonly Method[],
): Promise<AdapterFile> {
  const { record } = adapter;
  const tensors = new Map(adapter.tensors);
  const settled = new Map<AdapterSite, AdapterSite>();
  for (const { site, role, param, method } of adapterTensors(record, methods)) {
    const factors = factorsAt(method, site);
    if (factors === undefined) continue;
    const rank = site.params[factors.left]?.shape.at(-1) ?? 0;
    settled.set(site, { ...site, config: jsonOf(factors.unscaled(site.config, rank)) });
    const tensor = tensors.get(param.key);
    if (tensor !== undefined && scaledRoles(factors).includes(role))
      tensors.set(param.key, await rescaled(tensor, factors.scale(site.config), tensor.dtype));
  }
  return {
    ...adapter,
    record: { ...record, sites: record.sites.map((site) => settled.get(site) ?? site) },
    tensors,
  };
}
