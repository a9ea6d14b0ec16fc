/**
 * Seeded inputs for a model, made from the types of its inputs and from how the graph uses them: token ids stay inside
 * the embedding they index, masks are ones with right padding, other floats are normal. Used by verify, fold and bench.
 */
import { fail } from '../src/errors.js';
import type { Graph, Value } from '../src/graph.js';
import { fillNormal, type Random, randomStream } from '../src/initializer.js';
import type { Model } from '../src/model.js';
import { countOf, type DType, formatType, isFloat, type TensorType } from '../src/types.js';
import { type HostTensor, tensorOfNumbers } from './host-tensor.js';
import { indexBound } from './index-bounds.js';
import { relatedSizes, switchValue } from './past-inputs.js';

/** Sizes of symbolic dimensions. */
export type Sizes = Readonly<Record<string, number>>;

export interface RandomInputOptions {
  readonly seed?: number;
  /** Sizes by symbol; others get `defaultSize`. */
  readonly sizes?: Sizes;
  /** Size of symbols and unknown dimensions that `sizes` does not name. Default 4, so that axes differ from batch 2. */
  readonly defaultSize?: number;
  /** Masks are partly padded instead of all ones. */
  readonly padded?: boolean;
}

/** Required inputs of a model: graph inputs that are no initializers. */
export function requiredInputs(graph: Graph): Value[] {
  return graph.inputs.filter((value) => !graph.initializers.has(value));
}

/** Symbols in the shapes of the required inputs, in order of appearance. */
export function inputSymbols(model: Model): string[] {
  const symbols = new Set<string>();
  for (const input of requiredInputs(model.graph))
    if (input.type?.kind === 'tensor')
      for (const dim of input.type.shape ?? []) if (typeof dim === 'string') symbols.add(dim);
  return [...symbols];
}

/**
 * One tensor for every required input. Same model, same options: same bytes.
 * @throws E_UNSUPPORTED for inputs that are no tensors or have no known rank.
 */
export function randomInputs(model: Model, options: RandomInputOptions = {}): Record<string, HostTensor> {
  const inputs: Record<string, HostTensor> = {};
  const sizes = relatedSizes(model.graph, options.sizes ?? {}, options.defaultSize ?? 4);
  for (const value of requiredInputs(model.graph)) {
    const type = tensorTypeOf(value);
    const dims = (type.shape ?? []).map((dim) =>
      typeof dim === 'number' ? dim : ((dim === null ? undefined : sizes[dim]) ?? options.defaultSize ?? 4),
    );
    const name = value.label;
    const random = randomStream(options.seed ?? 0, `input/${name}`);
    const branch = switchValue(model.graph, value, sizes);
    inputs[name] =
      branch === undefined
        ? fill(value, type.dtype, dims, random, options.padded ?? false)
        : tensorOfNumbers(type.dtype, dims, new Uint8Array(countOf(dims)).fill(Number(branch)));
  }
  return inputs;
}

function tensorTypeOf(value: Value): TensorType {
  const { type } = value;
  if (type?.kind !== 'tensor' || type.shape === null)
    fail('E_UNSUPPORTED', {
      message: `No random tensor can be made for an input of type ${formatType(type)}`,
      where: value.label,
      remedy: 'Give the inputs in a safetensors file.',
    });
  return type;
}

interface Recipe {
  /** Whether the recipe knows this input, by what its name is made of or by how it is used. */
  readonly fits: (value: Value, dtype: DType) => boolean;
  readonly fill: (
    value: Value,
    dims: readonly number[],
    random: Random,
    padded: boolean,
  ) => ArrayLike<number>;
}

/** First fit wins. */
const RECIPES: readonly Recipe[] = [
  {
    fits: (value) => /mask/i.test(value.label),
    fill: (_value, dims, random, padded) => maskOf(dims, random, padded),
  },
  {
    fits: (value) => /position_ids|cache_position/i.test(value.label),
    fill: (_value, dims) => {
      const length = dims.at(-1) ?? 1;
      return Array.from({ length: countOf(dims) }, (_, i) => i % length);
    },
  },
  {
    fits: (_value, dtype) => isFloat(dtype),
    fill: (_value, dims, random) => {
      const values = new Float64Array(countOf(dims));
      fillNormal(values, random);
      return values;
    },
  },
  {
    fits: (_value, dtype) => dtype === 'bool',
    fill: (_value, dims, random) => integers(dims, 2, random),
  },
  {
    fits: () => true,
    // Integers that index nothing we can see stay 0 or 1: valid labels, types and flags almost everywhere.
    fill: (value, dims, random) => integers(dims, indexBound(value) ?? 2, random),
  },
];

function fill(
  value: Value,
  dtype: DType,
  dims: readonly number[],
  random: Random,
  padded: boolean,
): HostTensor {
  for (const recipe of RECIPES)
    if (recipe.fits(value, dtype))
      return tensorOfNumbers(dtype, dims, recipe.fill(value, dims, random, padded));
  return fail('E_UNSUPPORTED', { message: `No random values for dtype ${dtype}`, where: value.label });
}

function integers(dims: readonly number[], bound: number, random: Random): Float64Array {
  return Float64Array.from({ length: countOf(dims) }, () => Math.floor(random() * bound));
}

/** Ones; with padding, a suffix of every row but the first is zero, never the whole row. */
function maskOf(dims: readonly number[], random: Random, padded: boolean): Float64Array {
  const length = dims.at(-1) ?? 1;
  const mask = new Float64Array(countOf(dims)).fill(1);
  if (!padded || length < 2) return mask;
  for (let row = 1; row * length < mask.length; row++) {
    const kept = 1 + Math.floor(random() * (length - 1));
    mask.fill(0, row * length + kept, (row + 1) * length);
  }
  return mask;
}
