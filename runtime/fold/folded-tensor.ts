/** The payload of a folded weight: computed when the writer asks for it, some rows at a time, and dropped when written. */
import type { FoldTask } from '../../passes/fold/plan.js';
import { payloadOf } from '../../passes/sites/index.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { readPayload } from '../../src/onnx/index.js';
import type { Tensor, TensorData } from '../../src/tensor.js';
import { byteSize, countOf, isFloat } from '../../src/types.js';
import { type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';
import type { FormulaEvaluator } from './evaluator.js';
import { type Fidelity, FidelityMeter } from './fidelity.js';
import { type Floats, roundTo } from './rounding.js';
import { sliceAxis } from './slice.js';

export type ComputeDType = 'float32' | 'float64';

/** Elements of a block: it and what is made of it fit a processor's cache. */
const BLOCK_ELEMENTS = 1 << 18;
/** Blocks that are computed while another one is looked at. */
const AHEAD = 2;

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

  async *stream(): AsyncGenerator<Uint8Array> {
    const { task, base, evaluator } = this;
    const operands = await this.#operands();
    const meter = new FidelityMeter(task.target.label);
    const whole = new Map([...operands].filter(([input]) => task.blocks?.get(input) === undefined));
    // What every block needs whole crosses to the other thread once.
    const keys = new Map([...whole.keys()].map((input) => [input, `${serial++} ${input}`]));
    await evaluator.put(Object.fromEntries([...whole].map(([input, t]) => [keys.get(input) as string, t])));
    const resident = Object.fromEntries(keys);
    const cut = new Map([...operands].filter(([input]) => !whole.has(input)));
    const { lanes } = evaluator;
    const running: Promise<Block>[] = [];
    const [rows = 1, ...rest] = base.dims;
    const step = task.blocks === undefined ? rows : Math.max(1, Math.floor(BLOCK_ELEMENTS / countOf(rest)));
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
        const { original, computed, stored } = await (running.shift() as Promise<Block>);
        const numbers = numbersOf(computed);
        meter.add(numbersOf(original), numbers, stored === computed ? numbers : numbersOf(stored));
        lanes.free(original.data);
        if (stored !== computed) lanes.free(computed.data);
        yield stored.data;
        if (stored === computed) lanes.handed(stored.data);
      }
    } finally {
      await Promise.allSettled(running);
      await evaluator.drop([...keys.values()]);
    }
    this.fidelity = meter.result();
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
    const original = this.#rows(row, dims);
    // Stored in the dtype of the computation, the block is fed and written where it lies.
    const direct = base.dtype === computeDtype;
    const readsBase = task.formula.graph.inputs.some(({ name }) => name === 'w');
    const feeds: Record<string, HostTensor> = {};
    if (readsBase) feeds.w = direct ? original : this.#copy(original);
    for (const [input, operand] of operands)
      feeds[input] = sliceAxis(operand, task.blocks?.get(input) ?? 0, row, count);
    const into = {
      dtype: computeDtype,
      dims,
      data: evaluator.lanes.take(byteSize(computeDtype, countOf(dims))),
    };
    const { output, back } = await evaluator.evaluate(task.formula, {
      feeds,
      resident,
      into,
      ...(readsBase && direct ? { back: 'w' } : {}),
    });
    const stored = direct ? output : { dtype: base.dtype, dims, data: this.#rounded(output) };
    return { original: back ?? original, computed: output, stored };
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
    const { dtype, data } = this.base;
    const length = byteSize(dtype, countOf(dims));
    const [, ...rest] = dims;
    const buffer = this.evaluator.lanes.take(length);
    const bytes = readPayload(buffer, data, row * byteSize(dtype, countOf(rest)));
    if (bytes.buffer !== buffer.buffer) buffer.set(bytes);
    return { dtype, dims, data: buffer };
  }

  /** A copy in the dtype of the computation; sessions are given the buffer of what they are fed. */
  #copy(tensor: HostTensor): HostTensor {
    if (tensor.dtype === this.computeDtype || !isFloat(tensor.dtype))
      return { ...tensor, data: tensor.data.slice() };
    return tensorOfNumbers(this.computeDtype, tensor.dims, numbersOf(tensor));
  }
}

/** Some rows of a folded tensor. */
interface Block {
  readonly original: HostTensor;
  readonly computed: HostTensor;
  /** What is stored; the computed numbers themselves where nothing is rounded. */
  readonly stored: HostTensor;
}

/** Keys of resident tensors are of one evaluation alone. */
let serial = 0;
