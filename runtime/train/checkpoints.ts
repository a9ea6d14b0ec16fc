/** The checkpoints of one run: when the best was, what to keep, how to come back. */
import { rm } from 'node:fs/promises';
import { fail } from '../../src/errors.js';
import {
  checkFingerprint,
  type Fingerprint,
  latestCheckpoint,
  loadCheckpoint,
  pruneCheckpoints,
  saveCheckpoint,
} from './checkpoint.js';
import { persist } from './persist.js';
import type { Stepper } from './stepper.js';

export class Checkpoints {
  readonly folder: string;
  readonly #stepper: Stepper;
  readonly #fingerprint: Fingerprint;
  readonly #keep: number;
  readonly #signal: AbortSignal | undefined;
  #bestLoss: number | null = null;
  #stale = 0;
  #last: string | undefined;

  constructor(
    folder: string,
    stepper: Stepper,
    fingerprint: Fingerprint,
    options: { readonly keep: number; readonly signal?: AbortSignal },
  ) {
    this.folder = folder;
    this.#stepper = stepper;
    this.#fingerprint = fingerprint;
    this.#keep = Math.max(1, options.keep);
    this.#signal = options.signal;
  }

  /** Newest checkpoint of this run. */
  get last(): string | undefined {
    return this.#last;
  }

  /** Evaluations since the best one. */
  get stale(): number {
    return this.#stale;
  }

  /** Takes note of an evaluation; true when it is the best so far. */
  note(loss: number): boolean {
    const best = Number.isFinite(loss) && (this.#bestLoss === null || loss < this.#bestLoss);
    if (best) this.#bestLoss = loss;
    this.#stale = best ? 0 : this.#stale + 1;
    return best;
  }

  async save(step: number): Promise<string> {
    this.#last = await this.#write(step, false);
    await pruneCheckpoints(this.folder, this.#keep);
    return this.#last;
  }

  async saveBest(step: number): Promise<string> {
    return this.#write(step, true);
  }

  /** Loads a checkpoint (default: the newest) into the stepper and returns its step. */
  async restore(path?: string): Promise<number> {
    const found = path ?? (await latestCheckpoint(this.folder));
    if (found === undefined)
      return fail('E_IO', {
        message: 'There is no checkpoint to resume from',
        where: this.folder,
        remedy: 'Start a new run, or name the checkpoint file.',
      });
    const { run, params, state } = await loadCheckpoint(found);
    checkFingerprint(run.fingerprint, this.#fingerprint, found);
    await this.#stepper.load(params, state);
    this.#bestLoss = run.bestLoss;
    this.#stale = run.stale;
    this.#last = found;
    return run.step;
  }

  /** Removes what an earlier run left. */
  async clear(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }

  async #write(step: number, best: boolean): Promise<string> {
    const checkpoint = {
      run: { step, bestLoss: this.#bestLoss, stale: this.#stale, fingerprint: this.#fingerprint },
      params: await this.#stepper.params(),
      state: await this.#stepper.state(),
    };
    return persist(this.#signal, () => saveCheckpoint(this.folder, checkpoint, { best }));
  }
}
