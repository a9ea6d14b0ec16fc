/** The payload of a folded weight: computed when the writer asks for it, some rows at a time, and dropped when written. */
import type { FoldTask } from '../../passes/fold/plan.js';
import { payloadOf } from '../../passes/sites/index.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { readPayload } from '../../src/onnx/index.js';
import type { Tensor, TensorData } from '../../src/tensor.js';
import { byteSize, countOf, isFloat } from '../../src/types.js';
import { sizeAt } from '../../src/value-type.js';
import { type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';
import type { FormulaEvaluator } from './evaluator.js';
import { type Fidelity, FidelityMeter } from './fidelity.js';
import type { Factors, LowRankKernel } from './low-rank/kernel.js';
import { TILE_ROWS } from './low-rank/program.js';
import { factorsOf, LEFT, RIGHT } from './low-rank/split.js';
import { type Floats, roundTo } from './rounding.js';
import { sliceAxis } from './slice.js';

export type ComputeDType = 'float32' | 'float64';

/** Elements of a block: it and what is made of it fit a processor's cache. */
const BLOCK_ELEMENTS = 1 << 18;
/** Blocks that are computed while another one is looked at. */
const AHEAD = 2;
/** Above this rank ONNX Runtime's products are worth the way to another thread. */
const MAX_RANK = 64;

export class FoldedData implements TensorData {
  readonly byteLength: number;
  /** Known once the payload was computed. */
  fidelity: Fidelity | undefined;

  constructor(
    readonly task: FoldTask,
    readonly base: Tensor,
    readonly params: ReadonlyMap<string, Tensor>,
    readonly evaluator: FormulaEvaluator,
    readonly computeDtype: ComputeDType,
    /** Other stored tensors that the formula reads, as they were before the fold. */
    readonly stored: (value: Value) => Tensor | undefined = payloadOf,
  ) {
    this.byteLength = byteSize(base.dtype, countOf(base.dims));
  }

  read(): Uint8Array {
    return fail('E_INVALID_GRAPH', {
      message: 'A folded weight is computed on demand and cannot be read in place',
      where: this.task.target.label,
    });
  }

  stream(): AsyncGenerator<Uint8Array> {
    return this.#pieces((piece) => this.evaluator.lanes.handed(piece));
  }

  /** All bytes, for a reader that needs them together. Pieces of a `stream` stay as they are meanwhile. */
  async bytes(): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.byteLength);
    let at = 0;
    for await (const piece of this.#pieces((copied) => this.evaluator.lanes.free(copied))) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }

  /** @param passed is given each piece when the next one is asked for */
  async *#pieces(passed: (piece: Uint8Array) => void): AsyncGenerator<Uint8Array> {
    const meter = new FidelityMeter(this.task.target.label);
    const { kernel } = this.evaluator;
    const factors = kernel === undefined ? undefined : await this.#factors();
    const pieces =
      kernel === undefined || factors === undefined
        ? this.#computed(meter)
        : this.#updated(kernel, factors, meter);
    for await (const piece of pieces) {
      yield piece;
      passed(piece);
    }
    this.fidelity = meter.result();
  }

  /** The factors of an update of low rank; undefined where the formula is another one, or its rank is high. */
  async #factors(): Promise<Factors | undefined> {
    const { task, base, evaluator, computeDtype } = this;
    const inFloats = base.dtype === 'float32' && computeDtype === 'float32';
    if (!inFloats || base.dims.length !== 2) return undefined;
    const formula = factorsOf(task.formula);
    const rank = sizeAt(formula?.graph.outputs[0]?.value, 0);
    if (formula === undefined || rank === undefined || rank > MAX_RANK) return undefined;
    const names = new Set(formula.graph.inputs.map(({ name }) => name));
    const operands = [...(await this.#operands())].filter(([name]) => names.has(name));
    const factors = await evaluator.runAll(formula, Object.fromEntries(operands));
    const { [LEFT]: left, [RIGHT]: right } = factors;
    const [rows = 0, columns = 0] = base.dims;
    if (left === undefined || right === undefined) return undefined;
    // A product of one row or one column may be added to all of them.
    if (left.dims.join() !== `${rank},${rows}` || right.dims.join() !== `${rank},${columns}`)
      return undefined;
    return {
      left: numbersOf(left) as Float32Array,
      right: numbersOf(right) as Float32Array,
      rank,
      rows,
      columns,
    };
  }

  /** Blocks by the kernel of low rank. */
  async *#updated(kernel: LowRankKernel, factors: Factors, meter: FidelityMeter): AsyncGenerator<Uint8Array> {
    const { lanes } = this.evaluator;
    const { rows, columns } = factors;
    const step = TILE_ROWS * Math.max(1, Math.floor(rowsOfBlock(columns) / TILE_ROWS));
    for (let row = 0; row < rows; ) {
      const count = Math.min(step, rows - row);
      const block = kernel.input(factors, count);
      this.#readRows(block, row);
      const sums = kernel.update(factors, row, count);
      const stored = lanes.take(block.byteLength);
      stored.set(block);
      if (Number.isFinite(sums.base + sums.delta)) meter.addSums(count * columns, sums);
      // Some number is not finite, or its square is not: they are looked at one by one.
      else {
        const block = { dtype: 'float32', dims: [count, columns], data: stored } as const;
        this.#measure(meter, row, block, block);
      }
      yield stored;
      row += count;
    }
  }

  /** Blocks by the formula, in ONNX Runtime. */
  async *#computed(meter: FidelityMeter): AsyncGenerator<Uint8Array> {
    const { task, base, evaluator } = this;
    const operands = await this.#operands();
    const whole = new Map([...operands].filter(([input]) => task.blocks?.get(input) === undefined));
    // What every block needs whole crosses to the other thread once.
    const keys = new Map([...whole.keys()].map((input) => [input, `${serial++} ${input}`]));
    await evaluator.put(Object.fromEntries([...whole].map(([input, t]) => [keys.get(input) as string, t])));
    const resident = Object.fromEntries(keys);
    const cut = new Map([...operands].filter(([input]) => !whole.has(input)));
    const running: Promise<Block>[] = [];
    const [rows = 1, ...rest] = base.dims;
    const step = task.blocks === undefined ? rows : rowsOfBlock(countOf(rest));
    try {
      for (let row = 0; row < rows || running.length > 0; ) {
        while (row < rows && running.length < AHEAD) {
          const count = Math.min(step, rows - row);
          const block = this.#block(cut, resident, row, count);
          // Awaited in order; one that fails behind another that failed says nothing new.
          block.catch(() => {});
          running.push(block);
          row += count;
        }
        const { first, computed, stored } = await (running.shift() as Promise<Block>);
        this.#measure(meter, first, computed, stored);
        yield stored.data;
      }
    } finally {
      await Promise.allSettled(running);
      await evaluator.drop([...keys.values()]);
    }
  }

  /** Computes some rows. */
  async #block(
    operands: ReadonlyMap<string, HostTensor>,
    resident: Readonly<Record<string, string>>,
    row: number,
    count: number,
  ): Promise<Block> {
    const { task, base, evaluator, computeDtype } = this;
    const [, ...rest] = base.dims;
    const dims = base.dims.length === 0 ? [] : [count, ...rest];
    const rounded = base.dtype !== computeDtype;
    const feeds: Record<string, HostTensor> = {};
    if (task.formula.graph.inputs.some(({ name }) => name === 'w')) {
      const original = this.#rows(row, dims);
      feeds.w = rounded ? this.#copy(original) : original;
      if (rounded) evaluator.lanes.free(original.data);
    }
    for (const [input, operand] of operands)
      feeds[input] = sliceAxis(operand, task.blocks?.get(input) ?? 0, row, count);
    const computed = await evaluator.run(task.formula, feeds, resident);
    const stored = rounded ? { dtype: base.dtype, dims, data: this.#rounded(computed) } : computed;
    return { first: row, computed, stored };
  }

  /** Compares a block with the base's rows, which are read again: the runtime was given their buffer. */
  #measure(meter: FidelityMeter, first: number, computed: HostTensor, stored: HostTensor): void {
    const original = this.#rows(first, stored.dims);
    const numbers = numbersOf(computed);
    meter.add(numbersOf(original), numbers, stored === computed ? numbers : numbersOf(stored));
    this.evaluator.lanes.free(original.data);
  }

  #rounded(computed: HostTensor): Uint8Array {
    return roundTo(this.base.dtype, numbersOf(computed) as Floats);
  }

  /** Parameters and other stored tensors in the dtype of the computation. */
  async #operands(): Promise<Map<string, HostTensor>> {
    const operands = new Map<string, HostTensor>();
    for (const [input, source] of this.task.inputs) {
      const tensor = 'param' in source ? this.params.get(source.param.key) : this.stored(source.base);
      if (tensor === undefined)
        fail('E_INVALID_DATA', {
          message: `The adapter file lacks tensor '${'param' in source ? source.param.key : input}'`,
          where: this.task.target.label,
          remedy: 'Use the file that training wrote',
        });
      operands.set(input, this.#copy(await loadTensor(tensor)));
    }
    return operands;
  }

  /** Rows of the stored tensor from `row`, in a buffer of the lanes. */
  #rows(row: number, dims: readonly number[]): HostTensor {
    const { dtype } = this.base;
    const data = this.evaluator.lanes.take(byteSize(dtype, countOf(dims)));
    this.#readRows(data, row);
    return { dtype, dims, data };
  }

  /** As many rows of the stored tensor from `row` as `target` takes. */
  #readRows(target: Uint8Array, row: number): void {
    const { dtype, dims, data } = this.base;
    const bytes = readPayload(target, data, row * byteSize(dtype, countOf(dims.slice(1))));
    if (bytes.buffer !== target.buffer) target.set(bytes);
  }

  /** A copy in the dtype of the computation; sessions are given the buffer of what they are fed. */
  #copy(tensor: HostTensor): HostTensor {
    if (tensor.dtype === this.computeDtype || !isFloat(tensor.dtype)) {
      const data = this.evaluator.lanes.take(tensor.data.byteLength);
      data.set(tensor.data);
      return { ...tensor, data };
    }
    return tensorOfNumbers(this.computeDtype, tensor.dims, numbersOf(tensor));
  }
}

function rowsOfBlock(rowElements: number): number {
  return Math.max(1, Math.floor(BLOCK_ELEMENTS / rowElements));
}

/** Some rows of a folded tensor. */
interface Block {
  /** Number of its first row. */
  readonly first: number;
  readonly computed: HostTensor;
  /** What is stored; the computed numbers themselves where nothing is rounded. */
  readonly stored: HostTensor;
}

/** Keys of resident tensors are of one evaluation alone. */
let serial = 0;
