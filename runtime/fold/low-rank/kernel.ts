/**
 * Adds a product of thin matrices to rows of a weight and measures the update, in one pass over the memory and in
 * threads of its own. Through ONNX Runtime the same takes several passes, and every block is
 * copied on its way to another thread and back.
 */
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { readAside } from '../../../src/onnx/index.js';
import type { TensorData } from '../../../src/tensor.js';
import { workerFile } from '../../worker-file.js';
import type { Sums } from '../fidelity.js';
import type { Piece } from '../pieces.js';
import type { BlockRows } from '../weight.js';
import { type Engine, engineHere, MAX_PAGES } from './engine.js';
import { KernelThread } from './kernel-thread.js';
import { lowRankProgram, SUMS_BYTES } from './program.js';
import { type Region, Regions } from './regions.js';
import { KERNEL_DTYPES, type KernelDType, STORAGES } from './storage.js';

/** Threads at most: two of them keep up with the system's copies to the disk's cache. */
const MAX_THREADS = 2;

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

export class LowRankKernel {
  readonly #threads: readonly KernelThread[];
  readonly #regions: Regions;

  private constructor(engine: Engine, programs: Readonly<Record<KernelDType, Uint8Array>>, script: string) {
    const memory = new engine.Memory({ initial: 1, maximum: MAX_PAGES, shared: true });
    const modules = ofDTypes((dtype) => new engine.Module(programs[dtype]));
    const count = Math.min(MAX_THREADS, availableParallelism());
    this.#threads = Array.from({ length: count }, () => new KernelThread(script, { modules, memory }));
    this.#regions = new Regions(memory);
  }

  /** Undefined where Node.js cannot run it: old processors lack vectors, and `--jitless` the compiler. */
  static create(): LowRankKernel | undefined {
    const engine = engineHere();
    const programs = ofDTypes(lowRankProgram);
    const script = workerFile('fold/low-rank/kernel-worker');
    if (!Object.values(programs).every((program) => engine?.validate(program) === true)) return undefined;
    return engine === undefined || !existsSync(script)
      ? undefined
      : new LowRankKernel(engine, programs, script);
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
    const rowBytes = STORAGES[dtype].bytes * columns;
    const length = count * rowBytes;
    const region = this.#regions.take(SUMS_BYTES + length);
    const bytes = this.#regions.bytes(region, SUMS_BYTES, length);
    await readAside(bytes, data, row * rowBytes);
    await this.#idlest().update({
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
    return { bytes, sums: this.#sums(region, count * columns), free: () => this.#regions.free(region) };
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  #idlest(): KernelThread {
    return this.#threads.reduce((least, thread) => (thread.load < least.load ? thread : least));
  }

  #sums(region: Region, count: number): Sums {
    const sums = this.#regions.doubles(region, 0, 8);
    const [base0 = 0, base1 = 0, delta0 = 0, delta1 = 0, , , lost0 = 0, lost1 = 0] = sums;
    const changed = this.#regions.integers(region, 32, 4).reduce((sum, lane) => sum + lane, 0);
    return {
      base: base0 + base1,
      delta: delta0 + delta1,
      lost: lost0 + lost1,
      unchanged: count - changed,
    };
  }
}

function ofDTypes<T>(make: (dtype: KernelDType) => T): Record<KernelDType, T> {
  return Object.fromEntries(KERNEL_DTYPES.map((dtype) => [dtype, make(dtype)])) as Record<KernelDType, T>;
}
