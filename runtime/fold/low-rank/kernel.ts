/**
 * Adds a product of thin matrices to rows of a weight and measures the update, in one pass over the memory and in
 * threads of its own. Through ONNX Runtime the same takes several passes, and every block is
 * copied on its way to another thread and back.
 */
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { PeftCompileError } from '../../../src/errors.js';
import { readAside } from '../../../src/onnx/index.js';
import type { TensorData } from '../../../src/tensor.js';
import { byteSize } from '../../../src/types.js';
import { type Ended, Thread } from '../../thread.js';
import { workerFile } from '../../worker-file.js';
import type { Sums } from '../fidelity.js';
import type { Piece } from '../pieces.js';
import type { BlockRows } from '../weight.js';
import { type Engine, engineHere, MAX_PAGES } from './engine.js';
import { lowRankProgram, readSums, SUMS_BYTES } from './program.js';
import type { KernelSetup, RowsToUpdate, RowsUpdated } from './protocol.js';
import { Regions } from './regions.js';
import { KERNEL_DTYPES, type KernelDType, STORAGES } from './storage.js';

/** Threads at most: two of them keep up with the system's copies to the disk's cache. */
const MAX_THREADS = 2;
/** Blocks that wait for a thread before another one is started, which takes as long as some blocks do. */
const BUSY = 2;

/** Factors of an update L R of a weight [rows, columns]. */
export interface Factors {
  /** Lᵀ, [rank, rows]. */
  readonly left: Float32Array;
  /** R, [rank, columns]. */
  readonly right: Float32Array;
  readonly rank: number;
  readonly rows: number;
  readonly columns: number;
}

/** Factors in the kernel's memory, until they are freed. */
export interface LoadedFactors extends Pick<Factors, 'rank' | 'rows' | 'columns'> {
  readonly leftAt: number;
  readonly rightAt: number;
  free(): void;
}

export interface KernelWeight {
  readonly dtype: KernelDType;
  readonly data: TensorData;
}

/** Rows with the update. */
export interface UpdatedRows extends Piece {
  readonly sums: Sums;
}

const SCRIPT = 'fold/low-rank/kernel-worker';

export class LowRankKernel {
  readonly #setup: KernelSetup;
  readonly #threads: Thread<RowsToUpdate, RowsUpdated>[] = [];
  readonly #regions: Regions;
  #closed = false;

  private constructor(setup: KernelSetup) {
    this.#setup = setup;
    this.#regions = new Regions(setup.memory);
  }

  /**
   * Undefined where Node.js cannot run it: old processors lack vectors, `--jitless` the compiler, and a limit of the
   * process's address space the room for a memory that may grow.
   */
  static create(): LowRankKernel | undefined {
    const engine = engineHere();
    const programs = ofDTypes(lowRankProgram);
    if (engine === undefined || !existsSync(workerFile(SCRIPT))) return undefined;
    if (!Object.values(programs).every((program) => engine.validate(program))) return undefined;
    const setup = setupOf(engine, programs);
    return setup === undefined ? undefined : new LowRankKernel(setup);
  }

  load({ left, right, rank, rows, columns }: Factors): LoadedFactors {
    const region = this.#regions.take(right.byteLength + left.byteLength);
    this.#regions.floats(region, 0, right.length).set(right);
    this.#regions.floats(region, right.byteLength, left.length).set(left);
    const rightAt = region.address;
    const free = () => this.#regions.free(region);
    return { rank, rows, columns, rightAt, leftAt: rightAt + right.byteLength, free };
  }

  /**
   * `count` rows of a weight from `row`, updated, rounded and measured.
   * @param weight [rows, columns] in `dtype`
   * @throws E_IO and others of reading the weight, E_RUNTIME when memory runs out
   */
  async update(
    factors: LoadedFactors,
    weight: KernelWeight,
    { row, count }: BlockRows,
  ): Promise<UpdatedRows> {
    const { rank, rows, columns, leftAt, rightAt } = factors;
    const { dtype, data } = weight;
    const rowBytes = byteSize(dtype, columns);
    const length = count * rowBytes;
    const region = this.#regions.take(SUMS_BYTES + length);
    const free = () => this.#regions.free(region);
    const bytes = this.#regions.bytes(region, SUMS_BYTES, length);
    try {
      await readAside(bytes, data, row * rowBytes);
      await this.#idlest(dtype).call({
        dtype,
        at: region.address + SUMS_BYTES,
        count,
        columns,
        leftAt: leftAt + 4 * row,
        leftStride: 4 * rows,
        rank,
        rightAt,
        sumsAt: region.address,
      });
    } catch (cause) {
      free();
      throw cause;
    }
    return { bytes, sums: readSums(this.#regions.bytes(region, 0, SUMS_BYTES), count * columns), free };
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#threads.map((thread) => thread.terminate()));
  }

  /** The thread with the least to do; a new one while there is work for it. */
  #idlest(dtype: KernelDType): Thread<RowsToUpdate, RowsUpdated> {
    if (this.#closed) throw this.#gone({});
    const [least] = this.#threads.toSorted((a, b) => a.waiting - b.waiting);
    // What is not rounded is updated about as quickly as the system copies it, which takes a processor, too.
    const free = availableParallelism() - (STORAGES[dtype].conversion === undefined ? 1 : 0);
    const full = this.#threads.length >= Math.min(MAX_THREADS, free);
    if (least !== undefined && (least.waiting < BUSY || full)) return least;
    const started = new Thread<RowsToUpdate, RowsUpdated>(SCRIPT, this.#setup, (ended) => this.#gone(ended));
    this.#threads.push(started);
    return started;
  }

  #gone({ cause }: Ended): PeftCompileError {
    return new PeftCompileError('E_RUNTIME', {
      message: this.#closed
        ? 'The kernel was used after it was closed'
        : `A thread that folds ended${cause === undefined ? '' : `: ${String(cause)}`}`,
      ...(this.#closed ? {} : { remedy: 'If memory ran out, fold where there is more of it.' }),
      cause,
    });
  }
}

/** Undefined where the system does not give the address space. */
function setupOf(
  engine: Engine,
  programs: Readonly<Record<KernelDType, Uint8Array>>,
): KernelSetup | undefined {
  try {
    const memory = new engine.Memory({ initial: 1, maximum: MAX_PAGES, shared: true });
    return { memory, modules: ofDTypes((dtype) => new engine.Module(programs[dtype])) };
  } catch {
    return undefined;
  }
}

function ofDTypes<T>(make: (dtype: KernelDType) => T): Record<KernelDType, T> {
  return Object.fromEntries(KERNEL_DTYPES.map((dtype) => [dtype, make(dtype)])) as Record<KernelDType, T>;
}
