/** Combinations of low-rank updates, each a way from the factors of several adapters to those of one. */
import { truncatedSvd } from '../../passes/methods/parts/linear-algebra/truncated-svd.js';
import { fail } from '../../src/errors.js';
import { MIX_NAMES, type MixOptions, mix, PRUNING_NAMES } from './mix.js';

/** s·left·right: left [rows, rank], right [rank, columns], row-major. */
export interface LowRank {
  readonly rows: number;
  readonly columns: number;
  readonly rank: number;
  readonly left: Float64Array;
  readonly right: Float64Array;
  readonly scale: number;
  /** Of the adapter. */
  readonly weight: number;
}

export interface CombinationOptions extends MixOptions {
  /** Rank of what a singular value decomposition leaves; default: the largest of the adapters. */
  readonly rank?: number;
  /** Module path, for errors. */
  readonly path: string;
}

/** The factors of the combination, whose scale is 1. */
export type Combination = (
  updates: readonly LowRank[],
  options: CombinationOptions,
) => Pick<LowRank, 'rank' | 'left' | 'right'>;

/** Factors side by side: the exact sum. */
const cat: Combination = (updates) => {
  const { rows, columns } = updates[0] as LowRank;
  const rank = updates.reduce((sum, update) => sum + update.rank, 0);
  const left = new Float64Array(rows * rank);
  const right = new Float64Array(rank * columns);
  let from = 0;
  for (const update of updates) {
    for (let row = 0; row < rows; row++)
      for (let k = 0; k < update.rank; k++)
        left[row * rank + from + k] = update.weight * update.scale * update.left[row * update.rank + k]!;
    right.set(update.right, from * columns);
    from += update.rank;
  }
  return { rank, left, right };
};

/** A mixture of the factors themselves, which is not one of the updates: as in PEFT, with the sign on one side. */
const ofFactors =
  (name: string): Combination =>
  (updates, options) => {
    const ranks = [...new Set(updates.map(({ rank }) => rank))];
    if (ranks.length > 1)
      fail('E_USAGE', {
        message: `Combining by '${name}' takes adapters of one rank; here they are ${ranks.join(' and ')}`,
        where: options.path,
        remedy: `Use cat, or ${name === 'linear' ? 'svd' : `${name}_svd`}`,
      });
    const roots = updates.map(({ weight, scale }) => Math.sqrt(Math.abs(weight * scale)));
    const signed = updates.map(
      ({ weight, scale }, i) => (weight * scale >= 0 ? 1 : -1) * (roots[i] as number),
    );
    const half = (side: 'left' | 'right', weights: readonly number[]) =>
      mix(
        name,
        { tensors: updates.map((update) => update[side]), weights },
        { ...options, key: `${options.key} ${side}` },
      );
    return { rank: ranks[0] as number, left: half('left', signed), right: half('right', roots) };
  };

/** A mixture of the updates, cut to a rank again. */
const ofUpdates =
  (name: string): Combination =>
  (updates, options) => {
    const { rows, columns } = updates[0] as LowRank;
    const mixed = mix(
      name,
      { tensors: updates.map((update) => product(update)), weights: updates.map(({ weight }) => weight) },
      options,
    );
    const rank = Math.min(options.rank ?? Math.max(...updates.map((update) => update.rank)), rows, columns);
    const { left, values, right } = truncatedSvd({ dims: [rows, columns], data: mixed }, rank);
    return { rank, left, right: right.map((value, i) => value * values[Math.floor(i / columns)]!) };
  };

/** s·left·right, [rows, columns]. */
function product({ rows, columns, rank, left, right, scale }: LowRank): Float64Array {
  const result = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++)
    for (let k = 0; k < rank; k++) {
      const value = scale * left[row * rank + k]!;
      for (let column = 0; column < columns; column++)
        result[row * columns + column]! += value * right[k * columns + column]!;
    }
  return result;
}

/** Those that end in a singular value decomposition, and so read a rank. */
const DECOMPOSED: Readonly<Record<string, Combination>> = {
  svd: ofUpdates('linear'),
  ...Object.fromEntries(
    MIX_NAMES.filter((name) => name !== 'linear').map((name) => [`${name}_svd`, ofUpdates(name)]),
  ),
};

/** By PEFT's names. */
export const COMBINATIONS: Readonly<Record<string, Combination>> = {
  cat,
  ...Object.fromEntries(MIX_NAMES.map((name) => [name, ofFactors(name)])),
  ...DECOMPOSED,
};

/** Combinations that read `rank`. */
export const RANKED: readonly string[] = Object.keys(DECOMPOSED);

/** Combinations that read `density`. */
export const PRUNING: readonly string[] = PRUNING_NAMES.flatMap((name) => [name, `${name}_svd`]);
