/** An adapter as the tensors that a serving graph, or another tool's, is fed: by name of the graph input. */
import type { AdapterSite } from '../../passes/adapter-record.js';
import { findSites } from '../../passes/sites/index.js';
import {
  type AdapterDialect,
  type AdapterTensor,
  dialectOf,
  nameIn,
  partsIn,
  peftKeyOf,
} from '../../passes/targets/dialects.js';
import { adapterTensors, factorsAt, type ServingOptions, scaledRoles } from '../../passes/targets/serving.js';
import { fail } from '../../src/errors.js';
import { encodeNumbers, tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import type { DType } from '../../src/types.js';
import { type AdapterFile, modelTensors } from '../adapter-file.js';
import { loadTensor, numbersOf } from '../host-tensor.js';
import { rescaled } from './rescale.js';

export interface ServingTensorOptions extends Omit<ServingOptions, 'rank'> {
  /** Names in PEFT by module of the graph, or by the beginning of its path. */
  readonly rename?: Readonly<Record<string, string>>;
  /** The base, which says where the parts of a packed projection end. */
  readonly model?: Model;
}

/**
 * Tensors by name, in the order of the record. Right factors hold the scale (`scale: 'factor'`, the default), or it is a
 * tensor [1] of its own, or nowhere. Throws E_UNSUPPORTED where the names are those of a tool that lacks a tensor.
 */
export async function servingTensors(
  adapter: AdapterFile,
  { names = 'own', scale = 'factor', dtype, methods, rename = {}, model: base }: ServingTensorOptions = {},
): Promise<Map<string, Tensor>> {
  const dialect = dialectOf(names);
  const stored = await modelTensors(adapter);
  const tensors = new Map<string, Tensor>();
  const add = (name: string, tensor: Tensor) => {
    if (tensors.has(name))
      fail('E_USAGE', {
        message: `Two tensors are named '${name}'`,
        remedy: 'Give modules names of their own',
      });
    tensors.set(name, tensor);
  };
  const scales = new Map<string, { readonly factor: number; readonly type: DType }>();
  for (const one of adapterTensors(adapter.record, methods)) {
    const { param, site, role, method } = one;
    const tensor = stored.get(param.key) as Tensor;
    const factors = factorsAt(method, site);
    const reached = factors !== undefined && scaledRoles(factors).includes(role);
    const factor = reached ? factors.scale(site.config) : 1;
    const path = renamed(site.path, rename);
    const value = await rescaled(tensor, scale === 'factor' ? factor : 1, dtype ?? param.dtype);
    for (const [name, part] of await named(dialect, one, path, { value, base })) add(name, part);
    if (reached && scale === 'input')
      scales.set(dialect.name(path, 'lora_scale'), { factor, type: dtype ?? param.dtype });
  }
  for (const [name, { factor, type }] of scales) add(name, tensorOf(type, [1], [factor]));
  return tensors;
}

/** The tensor under its name; split where the tool keeps apart what is packed here. */
async function named(
  dialect: AdapterDialect,
  tensor: AdapterTensor,
  path: string,
  { value, base }: { readonly value: Tensor; readonly base: Model | undefined },
): Promise<readonly (readonly [string, Tensor])[]> {
  const parts = dialect.fromPeft && base !== undefined ? partsIn(dialect, path) : undefined;
  if (parts === undefined || base === undefined) return [[nameIn(dialect, tensor, path), value]];
  const { site, role, method } = tensor;
  const key = peftKeyOf(tensor, dialect);
  const factors = factorsAt(method, site);
  if (factors === undefined)
    return fail('E_UNSUPPORTED', {
      message: `Tensors of ${method?.id ?? 'this method'} have no parts that go with ${parts.join(', ')}`,
      where: site.path,
      remedy: 'Use --names own or olive',
    });
  // All parts read the same input: A is theirs in common, and every other tensor has a column per output.
  const pieces =
    role === factors.left ? parts.map(() => value) : await columns(value, widths(base, site, parts));
  return parts.map((part, i) => [dialect.name(part, key), pieces[i] as Tensor]);
}

/** Outputs of the parts of a packed projection. */
function widths(base: Model, { path }: AdapterSite, parts: readonly string[]): number[] {
  const found = findSites(base).flatMap((site) =>
    site.kind === 'linear' && site.packedIn === path && site.weight.columns !== undefined
      ? [site.weight.columns]
      : [],
  );
  if (found.length !== parts.length)
    fail('E_UNSUPPORTED', {
      message: `The model does not show where ${parts.join(', ')} lie in this projection`,
      where: path,
      remedy: 'Use --names olive, which keeps it whole',
    });
  return found.sort((a, b) => a.start - b.start).map(({ start, end }) => end - start);
}

/** A matrix [rows, out] or a vector [out], cut into runs of columns. */
async function columns(tensor: Tensor, widths: readonly number[]): Promise<Tensor[]> {
  const { dtype, dims } = tensor;
  const out = dims.at(-1) ?? 0;
  const rows = dims.length === 1 ? 1 : (dims[0] ?? 0);
  const numbers = numbersOf(await loadTensor(tensor));
  let start = 0;
  return widths.map((width) => {
    const from = start;
    start += width;
    const part = Float64Array.from(
      { length: rows * width },
      (_, i) => numbers[Math.floor(i / width) * out + from + (i % width)] ?? 0,
    );
    return tensorOfBytes(dtype, [...dims.slice(0, -1), width], encodeNumbers(dtype, part));
  });
}

/** The longest beginning of the path that has another name. */
function renamed(path: string, rename: Readonly<Record<string, string>>): string {
  const [known] = Object.keys(rename)
    .filter((one) => one === path || path.startsWith(`${one}.`))
    .sort((a, b) => b.length - a.length);
  return known === undefined ? path : `${rename[known]}${path.slice(known.length)}`;
}
