/** A worker thread that answers calls: every request has a number, and so has its reply. */
import { Worker } from 'node:worker_threads';
import type { PeftCompileError } from '../src/errors.js';
import { workerFile } from './worker-file.js';

/** What goes to the thread. */
export interface Numbered<Request> {
  readonly id: number;
  readonly request: Request;
}

/** Why a thread is no more. */
export interface Ended {
  /** What it threw, if anything. */
  readonly cause?: unknown;
  /** Status it ended with. */
  readonly status?: number;
}

interface Pending<Reply> {
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

export class Thread<Request, Reply extends { readonly id: number }> {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending<Reply>>();
  readonly #errorOf: (ended: Ended) => PeftCompileError;
  #serial = 0;
  #dead: PeftCompileError | undefined;

  /**
   * @param script as for `workerFile`
   * @param errorOf what calls are told from when the thread has ended
   */
  constructor(script: string, data: unknown, errorOf: (ended: Ended) => PeftCompileError) {
    this.#errorOf = errorOf;
    // The scripts need none of the process's flags, and some are errors in a thread (--input-type).
    this.#worker = new Worker(workerFile(script), { workerData: data, execArgv: [] });
    this.#worker.unref();
    this.#worker.on('message', (reply: Reply) => this.#settle(reply));
    this.#worker.on('error', (cause) => this.#end({ cause }));
    this.#worker.on('exit', (status) => this.#end({ status }));
  }

  /** Calls that wait for a reply. */
  get waiting(): number {
    return this.#pending.size;
  }

  get ended(): boolean {
    return this.#dead !== undefined;
  }

  /** Gives buffers of `transfer` away. Rejects when the thread has ended, or ends before it replies. */
  call(request: Request, transfer: readonly ArrayBuffer[] = []): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (this.#dead !== undefined) {
        reject(this.#dead);
        return;
      }
      const id = this.#serial++;
      this.#pending.set(id, { resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage({ id, request } satisfies Numbered<Request>, transfer);
    });
  }

  /** Waits until the thread has ended by itself. */
  async over(): Promise<void> {
    if (this.ended) return;
    const ended = new Promise<void>((resolve) => this.#worker.once('exit', () => resolve()));
    this.#worker.ref();
    await ended;
  }

  async terminate(): Promise<void> {
    await this.#worker.terminate();
  }

  #settle(reply: Reply): void {
    const call = this.#pending.get(reply.id);
    this.#pending.delete(reply.id);
    // An idle thread must not keep the process alive.
    if (this.#pending.size === 0) this.#worker.unref();
    call?.resolve(reply);
  }

  #end(ended: Ended): void {
    this.#dead ??= this.#errorOf(ended);
    for (const { reject } of this.#pending.values()) reject(this.#dead);
    this.#pending.clear();
  }
}
