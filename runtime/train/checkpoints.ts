/** The checkpoints of one run: when the best was, what to keep, how to come back. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../../src/errors.js';
import type { HostTensor } from '../host-tensor.js';
import {
  BEST_NAME,
  checkFingerprint,
  clearCheckpoints,
  type Fingerprint,
  latestCheckpoint,
  loadCheckpoint,
  pruneCheckpoints,
  saveCheckpoint,
} from './checkpoint.js';
import { persist } from './persist.js';
import type { Procedures } from './procedures.js';
import type { Stepper } from './stepper.js';

export class Checkpoints {
  readonly folder: string;
  readonly #stepper: Stepper;
  readonly #procedures: Procedures;
  readonly #fingerprint: Fingerprint;
  readonly #keep: number;
  readonly #signal: AbortSignal | undefined;
  #bestLoss: number | null = null;
  #stale = 0;
  /** An evaluation is due at the present step and has not been done. */
  evaluationDue = false;
  #last: string | undefined;

  constructor(
    folder: string,
    stepper: Stepper,
    procedures: Procedures,
    fingerprint: Fingerprint,
    options: { readonly keep: number; readonly signal?: AbortSignal },
  ) {
    this.folder = folder;
    this.#stepper = stepper;
    this.#procedures = procedures;
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
    this.evaluationDue = false;
    return best;
  }

  async save(step: number): Promise<string> {
    this.#last = await this.#write(step, false);
    await pruneCheckpoints(this.folder, this.#keep, step);
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
    const { run, params, state, procedures } = await loadCheckpoint(found);
    checkFingerprint(run.fingerprint, this.#fingerprint, found);
    await this.#stepper.load(params, state);
    this.#stepper.scaler.restore(run.lossScale);
    this.#procedures.restore(procedures);
    this.#bestLoss = run.bestLoss;
    this.#stale = run.stale;
    this.evaluationDue = run.evaluationDue;
    this.#last = found;
    return run.step;
  }

  /**
   * Parameters of the best evaluation; undefined when there was none.
   * @throws E_INVALID_DATA when the file is gone or another run's.
   */
  async bestParams(): Promise<ReadonlyMap<string, HostTensor> | undefined> {
    if (this.#bestLoss === null) return undefined;
    const path = join(this.folder, BEST_NAME);
    const best = existsSync(path) ? await loadCheckpoint(path) : undefined;
    // A run that was killed and evaluates at other steps since may have left a better one.
    if (best?.run.bestLoss == null || best.run.bestLoss > this.#bestLoss)
      return fail('E_INVALID_DATA', {
        message: `The parameters of the best evaluation, of loss ${this.#bestLoss}, are not in this folder`,
        where: path,
        remedy: 'Copy the file from the folder of the run that was resumed, or take the last parameters.',
      });
    checkFingerprint(best.run.fingerprint, this.#fingerprint, path);
    return best.params;
  }

  /** Removes what an earlier run left. */
  async clear(): Promise<void> {
    await clearCheckpoints(this.folder);
  }

  async #write(step: number, best: boolean): Promise<string> {
    const checkpoint = {
      run: {
        step,
        bestLoss: this.#bestLoss,
        stale: this.#stale,
        evaluationDue: this.evaluationDue,
        lossScale: this.#stepper.scaler.state(),
        fingerprint: this.#fingerprint,
      },
      params: await this.#stepper.params(),
      state: await this.#stepper.state(),
      procedures: this.#procedures.state(),
    };
    return persist(this.#signal, () => saveCheckpoint(this.folder, checkpoint, { best }));
  }
}
