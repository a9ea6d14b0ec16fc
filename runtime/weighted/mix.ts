/**
 * Mixtures of tensors by weight. Source: peft 0.21, `utils/merge_utils.py`; TIES (arXiv 2306.01708), DARE (2311.03099).
 * Random masks are drawn from our own seeded stream: torch's differ.
 */
import { type Random, randomStream } from '../../src/initializer.js';

/** Tensors of equal size, and what each is multiplied by. */
export interface Mixture {
  readonly tensors: readonly Float64Array[];
  readonly weights: readonly number[];
}

export interface MixOptions {
  /** Share of the entries that pruning keeps. */
  readonly density: number;
  readonly sign: 'total' | 'frequency';
  readonly seed: number;
  /** Of the stream of random masks. */
  readonly key: string;
}

type Prune = (tensor: Float64Array, options: MixOptions, random: Random) => Float64Array;

/** The entries of largest magnitude. */
const byMagnitude: Prune = (tensor, { density }) => {
  if (density >= 1) return tensor;
  const order = Array.from(tensor.keys()).sort(
    (a, b) => Math.abs(tensor[b]!) - Math.abs(tensor[a]!) || a - b,
  );
  const kept = new Float64Array(tensor.length);
  for (const i of order.slice(0, Math.floor(density * tensor.length))) kept[i] = tensor[i]!;
  return kept;
};

/** Entries drawn at random, rescaled so that the expectation stays. */
const byChance: Prune = (tensor, { density }, random) =>
  density >= 1 ? tensor : tensor.map((value) => (random() < density ? value / density : 0));

const all: Prune = (tensor) => tensor;

/** Σ w·t */
function sum({ tensors, weights }: Mixture): Float64Array {
  const result = new Float64Array(tensors[0]?.length ?? 0);
  for (const [k, tensor] of tensors.entries())
    for (let i = 0; i < result.length; i++) result[i]! += tensor[i]! * weights[k]!;
  return result;
}

/** The mean over those tensors that have the sign of the majority. */
function elected({ tensors, weights }: Mixture, sign: MixOptions['sign']): Float64Array {
  const result = new Float64Array(tensors[0]?.length ?? 0);
  for (let i = 0; i < result.length; i++) {
    let vote = 0;
    for (const tensor of tensors) vote += sign === 'total' ? tensor[i]! : Math.sign(tensor[i]!);
    const majority = vote >= 0 ? 1 : -1;
    let count = 0;
    for (const [k, tensor] of tensors.entries())
      if (Math.sign(tensor[i]!) === majority) {
        result[i]! += tensor[i]! * weights[k]!;
        count++;
      }
    result[i]! /= Math.max(count, 1);
  }
  return result;
}

const MIXES: Readonly<Record<string, { readonly prune: Prune; readonly elect: boolean }>> = {
  linear: { prune: all, elect: false },
  magnitude_prune: { prune: byMagnitude, elect: false },
  ties: { prune: byMagnitude, elect: true },
  dare_linear: { prune: byChance, elect: false },
  dare_ties: { prune: byChance, elect: true },
};

/** Names of the mixtures, as in PEFT. */
export const MIX_NAMES: readonly string[] = Object.keys(MIXES);

/** Names of the mixtures that prune, and so read a density. */
export const PRUNING_NAMES: readonly string[] = MIX_NAMES.filter((name) => MIXES[name]?.prune !== all);

export function mix(name: string, { tensors, weights }: Mixture, options: MixOptions): Float64Array {
  const { prune, elect } = MIXES[name] as (typeof MIXES)[string];
  const random = randomStream(options.seed, options.key);
  const pruned = tensors.map((tensor) => prune(tensor, options, random));
  return elect ? elected({ tensors: pruned, weights }, options.sign) : sum({ tensors: pruned, weights });
}
