/** The payload of a folded weight: computed when the writer asks for it, some rows at a time, and dropped when written. */
import type { FoldTask } from '../../passes/fold/plan.js';
import { payloadOf } from '../../passes/sites/index.js';
import { fail } from '../../src/errors.js';
import type { Tensor, TensorData } from '../../src/tensor.js';
import { byteSize, isFloat } from '../../src/types.js';
import { countOf, type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';
import type { FormulaEvaluator } from './evaluator.js';
import { type Fidelity, FidelityMeter } from './fidelity.js';
import { type Floats, roundTo } from './rounding.js';
import { sliceAxis } from './slice.js';

export type ComputeDType = 'float32' | 'float64';

/** Elements of a block: large enough to be limited by the disk, small against any weight that needs blocks. */
const BLOCK_ELEMENTS = 1 << 21;

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
    const { task, base } = this;
    const operands = await this.#operands();
    const readsBase = task.formula.graph.inputs.some(({ name }) => name === 'w');
    const meter = new FidelityMeter(task.target.label);
    const [rows = 1, ...rest] = base.dims;
    const perRow = countOf(rest);
    const step = task.blocks === undefined ? rows : Math.max(1, Math.floor(BLOCK_ELEMENTS / perRow));
    for (let row = 0; row < rows; row += step) {
      const count = Math.min(step, rows - row);
      const original = this.#rows(row, count, rest);
      const feeds: Record<string, HostTensor> = {};
      if (readsBase) feeds.w = this.#copy(original);
      for (const [input, operand] of operands) {
        const axis = task.blocks?.get(input);
        feeds[input] = axis === undefined ? this.#copy(operand) : sliceAxis(operand, axis, row, count);
      }
      const computed = numbersOf(await this.evaluator.run(task.formula, feeds)) as Floats;
      const bytes = roundTo(base.dtype, computed);
      meter.add(numbersOf(original), computed, numbersOf({ ...original, data: bytes }));
      yield bytes;
    }
    this.fidelity = meter.result();
  }

  /** Parameters and other stored tensors in the dtype of the computation. */
  async #operands(): Promise<Map<string, HostTensor>> {
    const operands = new Map<string, HostTensor>();
    for (const [input, source] of this.task.inputs) {
      const tensor = 'param' in source ? this.params.get(source.param.key) : payloadOf(source.base);
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

  /** `count` rows of the stored tensor from `row`. */
  #rows(row: number, count: number, rest: readonly number[]): HostTensor {
    const { dtype, dims, data } = this.base;
    const bytes = byteSize(dtype, countOf(rest));
    return {
      dtype,
      dims: dims.length === 0 ? [] : [count, ...rest],
      data: data.read(row * bytes, count * bytes),
    };
  }

  /** A copy in the dtype of the computation; sessions are given the buffer of what they are fed. */
  #copy(tensor: HostTensor): HostTensor {
    if (tensor.dtype === this.computeDtype || !isFloat(tensor.dtype))
      return { ...tensor, data: tensor.data.slice() };
    return tensorOfNumbers(this.computeDtype, tensor.dims, numbersOf(tensor));
  }
}
