/**
 * What a serving graph asks of an adapter: one required input per trained tensor. Low-rank factors have a free rank, so
 * that adapters of any rank fit, [in, 0] and [0, out] for none; their scale is a constant of the graph, part of the right
 * factor, or an input of its own.
 */
import { type DType, elementCount, type Shape } from '../../src/types.js';
import { type AdapterRecord, type AdapterSite, trainableParams } from '../adapter-record.js';
import type { Method } from '../methods/contract/method.js';
import type { WeightedFactors } from '../methods/contract/weighted.js';
import { resolveMethod } from '../methods/registry.js';
import { type AdapterDialect, type AdapterTensor, dialectOf, nameIn } from './dialects.js';

/**
 * The symbol of the free rank, as Olive calls it, in the first module; those of the others are numbered. One symbol for all
 * would promise equal ranks, and ONNX Runtime, which reuses buffers by it, fails where a pattern gives modules others.
 */
const RANK_SYMBOL = 'lora_r';

/** Where the scale s of low-rank factors is. `factor`: fed right factors are s·B. */
export type ScalePlace = 'graph' | 'factor' | 'input';

export const SCALE_PLACES: readonly ScalePlace[] = ['factor', 'input', 'graph'];

export interface ServingOptions {
  /** Names of the inputs, `DIALECTS`. Default `own`. */
  readonly names?: string;
  readonly scale?: ScalePlace;
  /** Whether adapters may have any rank. */
  readonly rank?: 'free' | 'fixed';
  /** Element type of the inputs; default: as the model has the parameters. */
  readonly dtype?: DType;
  /** Methods of one's own that the record may name. */
  readonly methods?: readonly Method[];
}

export interface ServingInput {
  /** Name of the graph input. */
  readonly name: string;
  /** Name of the parameter in the adapted model; that of the scaled factor for a scale. */
  readonly parameter: string;
  /** Key in adapter files. */
  readonly key: string;
  readonly kind: 'parameter' | 'scale';
  readonly shape: Shape;
  readonly dtype: DType;
  /** s, where the adapter's scale reaches this tensor; 1 elsewhere. */
  readonly factor: number;
  /** Name of the input with the scale, where there is one. */
  readonly scaledBy?: string;
  /** What every element of no adapter is, where no method has to be asked. */
  readonly neutral?: number;
}

/** Trained tensors of a record, each once, with where they stand. */
export function adapterTensors(record: AdapterRecord, methods?: readonly Method[]): AdapterTensor[] {
  const wanted = new Set(trainableParams(record).map(({ name }) => name));
  return record.sites.flatMap((site) =>
    Object.entries(site.params).flatMap(([role, param]) =>
      wanted.delete(param.name)
        ? [{ param, site, role, method: methodOf(record.entries[site.entry]?.method, methods) }]
        : [],
    ),
  );
}

function methodOf(id: string | undefined, own: readonly Method[] | undefined): Method | undefined {
  try {
    return resolveMethod(id ?? '', own);
  } catch {
    return undefined;
  }
}

/** The factors of a method at a site, where an update there is s·left·right. */
export function factorsAt(method: Method | undefined, site: AdapterSite): WeightedFactors | undefined {
  const weighted = method?.weighted;
  if (weighted?.by !== 'factors') return undefined;
  const { left, right } = weighted;
  return site.params[left] !== undefined && site.params[right] !== undefined ? weighted : undefined;
}

/** Roles that s multiplies. */
export function scaledRoles({ right, scaled = [] }: WeightedFactors): readonly string[] {
  return [right, ...scaled];
}

/** The inputs, in the order of the record; the scale of a module stands behind its tensors. */
export function servingInputs(
  record: AdapterRecord,
  { names = 'own', scale = 'graph', rank = 'fixed', dtype, methods }: ServingOptions = {},
): ServingInput[] {
  const dialect = dialectOf(names);
  const inputs: ServingInput[] = [];
  const scales = new Map<AdapterSite, ServingInput>();
  const symbols = new Map<AdapterSite, string>();
  const symbolOf = (site: AdapterSite): string => {
    const known =
      symbols.get(site) ?? (symbols.size === 0 ? RANK_SYMBOL : `${RANK_SYMBOL}_${symbols.size + 1}`);
    symbols.set(site, known);
    return known;
  };
  for (const tensor of adapterTensors(record, methods)) {
    const { param, site, role, method } = tensor;
    const factors = factorsAt(method, site);
    const reached = factors !== undefined && scale !== 'graph' && scaledRoles(factors).includes(role);
    const name = nameIn(dialect, tensor);
    const factor = reached ? factors.scale(site.config) : 1;
    const own: ServingInput = {
      name,
      parameter: param.name,
      key: param.key,
      kind: 'parameter',
      shape:
        factors === undefined || rank === 'fixed'
          ? param.shape
          : freed(param.shape, role, factors, symbolOf(site)),
      dtype: dtype ?? param.dtype,
      factor,
      ...(reached && scale === 'input' ? { scaledBy: scaleName(dialect, site) } : {}),
    };
    inputs.push(own);
    if (own.scaledBy !== undefined && !scales.has(site))
      scales.set(site, {
        ...own,
        name: own.scaledBy,
        key: own.scaledBy,
        kind: 'scale',
        shape: [1],
        neutral: 1,
      });
  }
  return [...inputs, ...scales.values()];
}

function scaleName(dialect: AdapterDialect, { path }: AdapterSite): string {
  return dialect.name(path, 'lora_scale');
}

/** The shape with the rank free: the last axis of the left factor, the first of the right one. */
function freed(
  shape: readonly number[],
  role: string,
  { left, right }: WeightedFactors,
  symbol: string,
): Shape {
  if (role === left) return [...shape.slice(0, -1), symbol];
  return role === right ? [symbol, ...shape.slice(1)] : shape;
}

/** The smallest shape of an input: 0 for a free rank. Undefined where the rank is not free. */
export function emptyShape({ shape }: ServingInput): readonly number[] | undefined {
  if (elementCount(shape) !== undefined) return undefined;
  return shape.map((dim) => (typeof dim === 'number' ? dim : 0));
}
