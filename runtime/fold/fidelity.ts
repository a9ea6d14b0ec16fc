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
   * Takes in the next elements.
   * @throws E_NON_FINITE when a stored number is NaN or infinite while the base's is finite.
   */
  add(base: NumericArray, computed: NumericArray, stored: NumericArray): void {
    let unchanged = 0;
    let baseSquares = 0;
    let deltaSquares = 0;
    let lostSquares = 0;
    for (let i = 0; i < base.length; i++) {
      const w = base[i]!;
      const c = computed[i]!;
      const s = stored[i]!;
      const delta = c - w;
      const lost = s - c;
      baseSquares += w * w;
      deltaSquares += delta * delta;
      lostSquares += lost * lost;
      if (s === w) unchanged++;
    }
    // A number that is not finite makes a sum not finite, so that single ones are looked at only then.
    if (!Number.isFinite(deltaSquares + lostSquares)) this.#checkFinite(base, computed, stored);
    this.#unchanged += unchanged;
    this.#baseSquares += baseSquares;
    this.#deltaSquares += deltaSquares;
    this.#lostSquares += lostSquares;
    this.#count += base.length;
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

function overflow(where: string, index: number, value: number): never {
  fail('E_NON_FINITE', {
    message: `The folded weight is ${Number.isFinite(value) ? `${value}, which its dtype cannot hold,` : value} at element ${index}`,
    where,
    remedy: Number.isFinite(value)
      ? 'Train with a smaller alpha or learning rate, or fold into a base of a wider dtype'
      : 'The adapter holds numbers that are not finite; fold an earlier checkpoint',
  });
}
