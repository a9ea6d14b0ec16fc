/** The payload of a folded weight: computed when the writer asks for it, dropped when it is written. */
import type { FoldTask } from '../../passes/fold.js';
import { fail } from '../../src/errors.js';
import type { Tensor, TensorData } from '../../src/tensor.js';
import { expectedBytes } from '../../src/tensor.js';
import { type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';
import type { FormulaEvaluator } from './evaluator.js';
import { type Fidelity, fidelityOf } from './fidelity.js';
import { type Floats, roundTo } from './rounding.js';

export type ComputeDType = 'float32' | 'float64';

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
    this.byteLength = expectedBytes(base);
  }

  read(): Uint8Array {
    return fail('E_INVALID_GRAPH', {
      message: 'A folded weight is computed on demand and cannot be read in place',
      where: this.task.target.label,
    });
  }

  async load(): Promise<Uint8Array> {
    const { task, base } = this;
    const original = await loadTensor(base);
    const feeds: Record<string, HostTensor> = { w: this.#operand(original) };
    for (const [input, { key }] of task.params) {
      const tensor =
        this.params.get(key) ??
        fail('E_INVALID_DATA', {
          message: `The adapter file lacks tensor '${key}'`,
          where: task.target.label,
          remedy: 'Use the file that training wrote',
        });
      feeds[input] = this.#operand(await loadTensor(tensor));
    }
    const computed = numbersOf(await this.evaluator.run(task.formula, feeds)) as Floats;
    const bytes = roundTo(base.dtype, computed);
    const stored = numbersOf({ dtype: base.dtype, dims: base.dims, data: bytes });
    this.fidelity = fidelityOf(numbersOf(original), computed, stored, task.target.label);
    return bytes;
  }

  /** A copy in the dtype of the computation; the copy is given away to the session. */
  #operand(tensor: HostTensor): HostTensor {
    if (tensor.dtype === this.computeDtype) return { ...tensor, data: tensor.data.slice() };
    return tensorOfNumbers(this.computeDtype, tensor.dims, numbersOf(tensor));
  }
}
