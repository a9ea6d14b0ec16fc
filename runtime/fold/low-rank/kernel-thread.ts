/** The main side of a thread of `LowRankKernel`. */
import { Worker } from 'node:worker_threads';
import { PeftCompileError } from '../../../src/errors.js';
import type { Memory } from './engine.js';
import type { Factors } from './kernel.js';
import type { KernelDType } from './storage.js';

/** What a thread is started with. */
export interface KernelSetup {
  readonly modules: Readonly<Record<KernelDType, object>>;
  readonly memory: Memory;
}

/** Rows of a weight for a thread to update in place. Addresses are of the memory that the threads share. */
export interface RowsToUpdate extends Pick<Factors, 'rank' | 'columns'> {
  readonly dtype: KernelDType;
  /** Of the first row, and how many there are. */
  readonly at: number;
  readonly count: number;
  /** Of the left factor's column for the first row, and the bytes from one row of that factor to the next. */
  readonly leftAt: number;
  readonly leftStride: number;
  readonly rightAt: number;
  /** Of the sums, which are zeros. */
  readonly sumsAt: number;
}

export type KernelRequest = RowsToUpdate & { readonly id: number };

/** Says that the rows of that number are updated. */
export interface KernelReply {
  readonly id: number;
}

interface Pending {
  resolve(): void;
  reject(error: Error): void;
}

export class KernelThread {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #serial = 0;
  #dead: PeftCompileError | undefined;

  constructor(script: string, setup: KernelSetup) {
    this.#worker = new Worker(script, { workerData: setup });
    this.#worker.unref();
    this.#worker.on('message', ({ id }: KernelReply) => this.#take(id)?.resolve());
    this.#worker.on('error', (cause) => this.#die(`A thread that folds crashed: ${String(cause)}`, cause));
    this.#worker.on('exit', () => this.#die('A thread that folds has ended'));
  }

  /** How often it was called and has not answered. */
  get load(): number {
    return this.#pending.size;
  }

  /** @throws E_RUNTIME when the thread is gone */
  update(rows: RowsToUpdate): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#dead !== undefined) {
        reject(this.#dead);
        return;
      }
      const id = this.#serial++;
      this.#pending.set(id, { resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage({ ...rows, id } satisfies KernelRequest);
    });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  #take(id: number): Pending | undefined {
    const entry = this.#pending.get(id);
    this.#pending.delete(id);
    // An idle thread must not keep the process alive.
    if (this.#pending.size === 0) this.#worker.unref();
    return entry;
  }

  #die(message: string, cause?: unknown): void {
    this.#dead ??= new PeftCompileError('E_RUNTIME', {
      message,
      remedy: 'If memory ran out, fold where there is more of it.',
      cause,
    });
    for (const { reject } of this.#pending.values()) reject(this.#dead);
    this.#pending.clear();
  }
}
