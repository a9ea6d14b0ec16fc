/**
 * Seeded initial values of trainable tensors, generated when they are read.
 *
 * Algorithm (documented, because adapters must be byte-reproducible): the state of an xoroshiro128+ generator is the
 * first 16 bytes, read as four little-endian int32, of SHA-256(`<seed>\n<key>`). Every tensor has its own stream, so the
 * order in which tensors are made or read does not matter. Elements are drawn in row-major order in float64 and rounded
 * once to the tensor's dtype. Uniform numbers have 53 bits; normal ones come in pairs from the polar method of Marsaglia.
 */
import { createHash } from 'node:crypto';
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { xoroshiro128plusFromState } from 'pure-rand/generator/xoroshiro128plus';
import { fail } from './errors.js';
import { encodeNumbers } from './literals.js';
import type { Tensor, TensorData } from './tensor.js';
import { byteSize, type DType, elementCount, isFloat } from './types.js';

/** A source of uniform numbers in [0, 1). */
export type Random = () => number;

/** How a tensor starts. The fields besides `fill` are plain JSON: they go into manifests and model metadata. */
export interface Initializer {
  readonly kind: string;
  /** Writes every element of `target`. */
  fill(target: Float64Array, random: Random): void;
}

export interface UniformInitializer extends Initializer {
  readonly kind: 'uniform';
  readonly bound: number;
}
export interface NormalInitializer extends Initializer {
  readonly kind: 'normal';
  readonly std: number;
}
export interface ConstantInitializer extends Initializer {
  readonly kind: 'constant';
  readonly value: number;
}

/** All elements 0. */
export const zeros: Initializer = initializer({ kind: 'zeros' }, (target) => target.fill(0));

/** All elements 1. */
export const ones: Initializer = constant(1);

/** All elements `value`. */
export function constant(value: number): ConstantInitializer {
  return initializer({ kind: 'constant', value }, (target) => target.fill(value));
}

/** Uniform in [−bound, bound). `kaiming_uniform_(a=√5)` of PyTorch is `uniform(1 / Math.sqrt(fanIn))`. */
export function uniform(bound: number): UniformInitializer {
  return initializer({ kind: 'uniform', bound }, (target, random) => {
    for (let i = 0; i < target.length; i++) target[i] = (2 * random() - 1) * bound;
  });
}

/** Normal with mean 0 and standard deviation `std`. */
export function normal(std: number): NormalInitializer {
  return initializer({ kind: 'normal', std }, (target, random) => fillNormal(target, random, std));
}

/** Polar method: (u, v) uniform in the unit disc, q = u²+v², then u·√(−2 ln q / q) and v·√(…) are independent N(0, 1). */
export function fillNormal(target: Float64Array, random: Random, std = 1): void {
  for (let i = 0; i < target.length; i += 2) {
    let u: number;
    let v: number;
    let q: number;
    do {
      u = 2 * random() - 1;
      v = 2 * random() - 1;
      q = u * u + v * v;
    } while (q >= 1 || q === 0);
    const factor = std * Math.sqrt((-2 * Math.log(q)) / q);
    target[i] = u * factor;
    if (i + 1 < target.length) target[i + 1] = v * factor;
  }
}

/** The stream of a (seed, key) pair; see the algorithm above. */
export function randomStream(seed: number | bigint, key: string): Random {
  const digest = createHash('sha256').update(`${seed}\n${key}`).digest();
  const state = [0, 4, 8, 12].map((offset) => digest.readInt32LE(offset));
  const generator = xoroshiro128plusFromState(state);
  return () => uniformFloat64(generator);
}

/** The numbers of an initializer for a seed and the key of a tensor, in row-major order. */
export function initialValues(
  init: Initializer,
  count: number,
  seed: number | bigint,
  key: string,
): Float64Array {
  const values = new Float64Array(count);
  init.fill(values, randomStream(seed, key));
  return values;
}

/** A payload that is generated on first read. `key` is the adapter key (or any name unique in the model). */
export class InitData implements TensorData {
  readonly byteLength: number;
  readonly init: Initializer;
  readonly seed: number | bigint;
  readonly key: string;
  readonly #dtype: DType;
  readonly #count: number;
  #bytes: Uint8Array | undefined;

  constructor(init: Initializer, dtype: DType, dims: readonly number[], seed: number | bigint, key: string) {
    if (!isFloat(dtype))
      fail('E_UNSUPPORTED', {
        message: `Only floating-point tensors can be initialized, not ${dtype}`,
        where: key,
      });
    this.init = init;
    this.seed = seed;
    this.key = key;
    this.#dtype = dtype;
    this.#count = elementCount(dims) ?? 0;
    this.byteLength = byteSize(dtype, this.#count);
  }

  read(offset: number, length: number): Uint8Array {
    this.#bytes ??= encodeNumbers(this.#dtype, initialValues(this.init, this.#count, this.seed, this.key));
    return this.#bytes.subarray(offset, offset + length);
  }
}

/** A tensor whose payload is an `InitData`. */
export function initTensor(
  init: Initializer,
  dtype: DType,
  dims: readonly number[],
  seed: number | bigint,
  key: string,
): Tensor {
  return { dtype, dims, data: new InitData(init, dtype, dims, seed, key) };
}

function initializer<const Fields extends { readonly kind: string }>(
  fields: Fields,
  fill: (target: Float64Array, random: Random) => void,
): Fields & Initializer {
  return { ...fields, fill };
}
