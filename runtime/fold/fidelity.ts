/**
 * What storing a folded weight costs: the update that was meant against the update that the stored numbers hold. A
 * short fine-tune folded into bfloat16 loses a third or more of its update; this is where that shows.
 */
import { fail } from '../../src/errors.js';
import type { NumericArray } from '../host-tensor.js';

export interface Fidelity {
  /** ‖Δ‖₂ / ‖W‖₂ of the computed update. */
  readonly relativeUpdate: number;
  /** Share of elements whose stored number is the base's. */
  readonly unchanged: number;
  /** ‖Δ_stored − Δ‖₂ / ‖Δ‖₂: share of the update lost to rounding. */
  readonly updateError: number;
}

/** Compares base, computed and stored numbers of one tensor, block by block, element by element in float64. */
export class FidelityMeter {
  #count = 0;
  #unchanged = 0;
  #baseSquares = 0;
  #deltaSquares = 0;
  #lostSquares = 0;

  constructor(readonly where: string) {}

  /**
   * Takes in the next elements. `stored` is `computed` itself where nothing is rounded.
   * @throws E_NON_FINITE when a stored number is NaN or infinite while the base's is finite.
   */
  add(base: NumericArray, computed: NumericArray, stored: NumericArray): void {
    const sums = stored === computed ? exactSums(base, computed) : roundedSums(base, computed, stored);
    // A number that is not finite makes a sum not finite, so that single ones are looked at only then.
    if (!Number.isFinite(sums.delta + sums.lost)) this.#checkFinite(base, computed, stored);
    this.addSums(base.length, sums);
  }

  /** Takes in `count` elements whose sums are known. */
  addSums(count: number, { unchanged, base, delta, lost }: Sums): void {
    this.#unchanged += unchanged;
    this.#baseSquares += base;
    this.#deltaSquares += delta;
    this.#lostSquares += lost;
    this.#count += count;
  }

  #checkFinite(base: NumericArray, computed: NumericArray, stored: NumericArray): void {
    for (let i = 0; i < base.length; i++)
      if (!Number.isFinite(stored[i]) && Number.isFinite(base[i]))
        overflow(this.where, this.#count + i, computed[i]!);
  }

  result(): Fidelity {
    const norm = Math.sqrt(this.#deltaSquares);
    return {
      relativeUpdate: this.#baseSquares === 0 ? 0 : norm / Math.sqrt(this.#baseSquares),
      unchanged: this.#count === 0 ? 1 : this.#unchanged / this.#count,
      updateError: norm === 0 ? 0 : Math.sqrt(this.#lostSquares) / norm,
    };
  }
}

/** Sums over some elements: how many are stored as they were, ‖W‖², ‖Δ‖² and ‖Δ_stored − Δ‖². */
export interface Sums {
  readonly unchanged: number;
  readonly base: number;
  readonly delta: number;
  readonly lost: number;
}

function roundedSums(base: NumericArray, computed: NumericArray, stored: NumericArray): Sums {
  const sums = { unchanged: 0, base: 0, delta: 0, lost: 0 };
  for (let i = 0; i < base.length; i++) {
    const w = base[i]!;
    const c = computed[i]!;
    const s = stored[i]!;
    const delta = c - w;
    const lost = s - c;
    sums.base += w * w;
    sums.delta += delta * delta;
    sums.lost += lost * lost;
    if (s === w) sums.unchanged++;
  }
  return sums;
}

/** Where nothing is rounded. Sums run in two lanes, so that no addition waits for the one before. */
function exactSums(base: NumericArray, computed: NumericArray): Sums {
  const even = base.length & ~1;
  let [base0, base1, delta0, delta1, unchanged] = [0, 0, 0, 0, 0];
  for (let i = 0; i < even; i += 2) {
    const w0 = base[i]!;
    const w1 = base[i + 1]!;
    const d0 = computed[i]! - w0;
    const d1 = computed[i + 1]! - w1;
    base0 += w0 * w0;
    base1 += w1 * w1;
    delta0 += d0 * d0;
    delta1 += d1 * d1;
    if (d0 === 0) unchanged++;
    if (d1 === 0) unchanged++;
  }
  if (even < base.length) {
    const w = base[even]!;
    const d = computed[even]! - w;
    base0 += w * w;
    delta0 += d * d;
    if (d === 0) unchanged++;
  }
  return { unchanged, base: base0 + base1, delta: delta0 + delta1, lost: 0 };
}

function overflow(where: string, index: number, value: number): never {
  fail('E_NON_FINITE', {
    message: `The folded weight is ${Number.isFinite(value) ? `${value}, which its dtype cannot hold,` : value} at element ${index}`,
    where,
    remedy: Number.isFinite(value)
      ? 'Train with a smaller alpha or learning rate, or fold into a base of a wider dtype'
      : 'The adapter holds numbers that are not finite; fold an earlier checkpoint',
  });
}
