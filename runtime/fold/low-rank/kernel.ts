/**
 * Adds a product of thin matrices to rows of a weight and measures the update, in one pass over the memory. Through
 * ONNX Runtime the same takes several passes, and every block is copied on its way to another thread and back.
 */
import type { Sums } from '../fidelity.js';
import { lowRankProgram } from './program.js';

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

/** Numbers of parameters are those of `lowRankProgram`. */
type Run = (...numbers: readonly number[]) => void;

/** What is used of the global of that name, which the language's own declarations leave to browsers. */
interface Engine {
  readonly Memory: new (limits: { initial: number }) => Memory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports: { env: { memory: Memory } },
  ) => { readonly exports: { readonly run: Run } };
  validate(bytes: Uint8Array): boolean;
}

interface Memory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

/** The engine where it has vectors: Node.js without a compiler (`--jitless`) has none, and old processors lack them. */
function engineFor(program: Uint8Array): Engine | undefined {
  const { WebAssembly: engine } = globalThis as { readonly WebAssembly?: Engine };
  return engine?.validate(program) === true ? engine : undefined;
}

const PAGE = 1 << 16;
/** Room for the sums, in front of everything else. */
const SUMS_BYTES = 64;

export class LowRankKernel {
  readonly #memory: Memory;
  readonly #run: Run;
  #loaded: Factors | undefined;

  private constructor(engine: Engine, program: Uint8Array) {
    this.#memory = new engine.Memory({ initial: 1 });
    const module = new engine.Module(program);
    this.#run = new engine.Instance(module, { env: { memory: this.#memory } }).exports.run;
  }

  /** Undefined where Node.js cannot run it. */
  static create(): LowRankKernel | undefined {
    const program = lowRankProgram();
    const engine = engineFor(program);
    return engine === undefined ? undefined : new LowRankKernel(engine, program);
  }

  /** Where `count` rows of the weight are put to be updated, and where they are afterwards. Valid until the next call. */
  input(factors: Factors, count: number): Uint8Array {
    const start = this.#load(factors);
    const length = 4 * count * factors.columns;
    this.#reach(start + length);
    return new Uint8Array(this.#memory.buffer, start, length);
  }

  /** Updates the rows of the last `input` in place, which are `count` from `row`, and measures the update. */
  update(factors: Factors, row: number, count: number): Sums {
    const { rank, rows, columns, right } = factors;
    const rightAt = SUMS_BYTES;
    const leftAt = rightAt + right.byteLength;
    this.#run(this.#load(factors), count, columns, leftAt + 4 * row, 4 * rows, rank, rightAt, 0);
    const [base0 = 0, base1 = 0, delta0 = 0, delta1 = 0] = new Float64Array(this.#memory.buffer, 0, 4);
    const changed = new Int32Array(this.#memory.buffer, 32, 4).reduce((sum, lane) => sum + lane, 0);
    return { base: base0 + base1, delta: delta0 + delta1, unchanged: count * columns - changed, lost: 0 };
  }

  /** Puts the factors into memory unless they are there; the address behind them. */
  #load(factors: Factors): number {
    const { left, right } = factors;
    const rightAt = SUMS_BYTES;
    const leftAt = rightAt + right.byteLength;
    const end = leftAt + left.byteLength;
    if (this.#loaded !== factors) {
      this.#reach(end);
      new Float32Array(this.#memory.buffer, rightAt, right.length).set(right);
      new Float32Array(this.#memory.buffer, leftAt, left.length).set(left);
      this.#loaded = factors;
    }
    // Vectors of rows need no alignment, but are loaded quicker where they have one.
    return Math.ceil(end / 64) * 64;
  }

  #reach(end: number): void {
    const missing = end - this.#memory.buffer.byteLength;
    if (missing > 0) this.#memory.grow(Math.ceil(missing / PAGE));
  }
}
