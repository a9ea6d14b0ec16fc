/** A weight that is to be folded: its stored rows, and what its formula reads besides. */
import type { FoldTask } from '../../passes/fold/plan.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { readPayload } from '../../src/onnx/index.js';
import { stretches } from '../../src/stretches.js';
import type { Tensor } from '../../src/tensor.js';
import { byteSize, countOf, isFloat } from '../../src/types.js';
import { type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';
import type { FormulaEvaluator } from './evaluator.js';
import type { FidelityMeter } from './fidelity.js';

export type ComputeDType = 'float32' | 'float64';

/** Rows of a block, out of `rows` in all. */
export interface BlockRows {
  readonly row: number;
  readonly count: number;
}

export class WeightToFold {
  constructor(
    readonly task: FoldTask,
    readonly base: Tensor,
    readonly params: ReadonlyMap<string, Tensor>,
    readonly evaluator: FormulaEvaluator,
    readonly computeDtype: ComputeDType,
    /** Other stored tensors that the formula reads, as they were before the fold. */
    readonly stored: (value: Value) => Tensor | undefined,
  ) {}

  /** Whether computed numbers are rounded to be stored. */
  get rounded(): boolean {
    return this.base.dtype !== this.computeDtype;
  }

  /** All rows in blocks of `step` and a last one that may be smaller. */
  *blocks(step: number): Generator<BlockRows> {
    for (const { at, size } of stretches(this.base.dims[0] ?? 1, step)) yield { row: at, count: size };
  }

  /** Stored rows in a buffer of the lanes. */
  rows({ row, count }: BlockRows): HostTensor {
    const { dtype, dims, data } = this.base;
    const [, ...rest] = dims;
    const target = this.evaluator.lanes.take(byteSize(dtype, count * countOf(rest)));
    const bytes = readPayload(target, data, row * byteSize(dtype, countOf(rest)));
    if (bytes.buffer !== target.buffer) target.set(bytes);
    return { dtype, dims: dims.length === 0 ? [] : [count, ...rest], data: target };
  }

  /** Parameters and other stored tensors that the formula reads, in the dtype of the computation. */
  async operands(): Promise<Map<string, HostTensor>> {
    const operands = new Map<string, HostTensor>();
    for (const [input, source] of this.task.inputs) {
      const tensor = 'param' in source ? this.params.get(source.param.key) : this.stored(source.base);
      if (tensor === undefined)
        fail('E_INVALID_DATA', {
          message: `The adapter file lacks tensor '${'param' in source ? source.param.key : input}'`,
          where: this.task.target.label,
          remedy: 'Use the file that training wrote',
        });
      operands.set(input, this.copy(await loadTensor(tensor)));
    }
    return operands;
  }

  /** A copy in the dtype of the computation; sessions are given the buffer of what they are fed. */
  copy(tensor: HostTensor): HostTensor {
    if (tensor.dtype === this.computeDtype || !isFloat(tensor.dtype)) {
      const data = this.evaluator.lanes.take(tensor.data.byteLength);
      data.set(tensor.data);
      return { ...tensor, data };
    }
    return tensorOfNumbers(this.computeDtype, tensor.dims, numbersOf(tensor));
  }

  /** Compares a block with the stored rows, which are read for it: whoever computed was given, or changed, what was read. */
  measure(meter: FidelityMeter, block: BlockRows, computed: HostTensor, stored: HostTensor): void {
    const original = this.rows(block);
    const numbers = numbersOf(computed);
    meter.add(numbersOf(original), numbers, stored === computed ? numbers : numbersOf(stored));
    this.evaluator.lanes.free(original.data);
  }
}
