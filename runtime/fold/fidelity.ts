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

/**
 * Compares base, computed and stored numbers of one tensor, element by element in float64.
 * @throws E_NON_FINITE when a computed or stored number is NaN or infinite while the base's is finite.
 */
export function fidelityOf(
  base: NumericArray,
  computed: NumericArray,
  stored: NumericArray,
  where: string,
): Fidelity {
  let baseSquares = 0;
  let deltaSquares = 0;
  let lostSquares = 0;
  let unchanged = 0;
  for (let i = 0; i < base.length; i++) {
    const w = base[i]!;
    const c = computed[i]!;
    const s = stored[i]!;
    if (!Number.isFinite(s) && Number.isFinite(w)) overflow(where, i, c);
    const delta = c - w;
    const lost = s - c;
    baseSquares += w * w;
    deltaSquares += delta * delta;
    lostSquares += lost * lost;
    if (s === w) unchanged++;
  }
  const norm = Math.sqrt(deltaSquares);
  return {
    relativeUpdate: baseSquares === 0 ? 0 : norm / Math.sqrt(baseSquares),
    unchanged: base.length === 0 ? 1 : unchanged / base.length,
    updateError: norm === 0 ? 0 : Math.sqrt(lostSquares) / norm,
  };
}

function overflow(where: string, index: number, value: number): never {
  fail('E_NON_FINITE', {
    message: `The folded weight overflows at element ${index} (${value})`,
    where,
    remedy: 'Fold at a smaller --scale, or into a wider dtype',
  });
}
