/** The factor on the loss of half-precision training, adapted to the run. */
import type { StepManifest } from '../../passes/targets/manifest.js';

export interface LossScaleState {
  readonly scale: number;
  /** Steps since the last change. */
  readonly steady: number;
  /** Steps that overflowed, since the start of the run. */
  readonly skipped: number;
}

/** Halves the scale when a gradient overflows and doubles it after many steps without: as the manifest says. */
export class LossScaler {
  readonly #rule: StepManifest['lossScaling'];
  #state: LossScaleState;

  constructor(manifest: StepManifest) {
    this.#rule = manifest.lossScaling;
    this.#state = { scale: this.#rule?.init ?? 1, steady: 0, skipped: 0 };
  }

  /** Whether the scale is adapted; otherwise it is part of the graphs. */
  get dynamic(): boolean {
    return this.#rule !== null;
  }

  get scale(): number {
    return this.#state.scale;
  }

  /** Steps that changed nothing; they do not count for the optimizer. */
  get skipped(): number {
    return this.#state.skipped;
  }

  /** Takes note of a step; true when it overflowed and was skipped. */
  note(gradNorm: number): boolean {
    if (this.#rule === null) return false;
    const { growth, backoff, interval } = this.#rule;
    const { scale, steady, skipped } = this.#state;
    if (!Number.isFinite(gradNorm)) {
      this.#state = { scale: scale * backoff, steady: 0, skipped: skipped + 1 };
      return true;
    }
    const grown = steady + 1 >= interval;
    this.#state = { scale: grown ? scale * growth : scale, steady: grown ? 0 : steady + 1, skipped };
    return false;
  }

  state(): LossScaleState | null {
    return this.dynamic ? this.#state : null;
  }

  restore(state: LossScaleState | null): void {
    if (state !== null && this.dynamic) this.#state = state;
  }
}
