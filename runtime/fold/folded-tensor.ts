/** The payload of a folded weight: computed when the writer asks for it, some rows at a time, and dropped when written. */
import type { FoldTask } from '../../passes/fold/plan.js';
import { payloadOf } from '../../passes/sites/index.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import type { Tensor, TensorData } from '../../src/tensor.js';
import { byteSize, countOf } from '../../src/types.js';
import type { FormulaEvaluator } from './evaluator.js';
import { type Fidelity, FidelityMeter } from './fidelity.js';
import { formulaBlocks } from './formula-blocks.js';
import { lowRankBlocks, lowRankFactors, lowRankFormula } from './low-rank/blocks.js';
import type { Piece } from './pieces.js';
import { type ComputeDType, WeightToFold } from './weight.js';

export class FoldedData implements TensorData {
  readonly byteLength: number;
  /** Known once the payload was computed. */
  fidelity: Fidelity | undefined;
  readonly #weight: WeightToFold;

  /** @param stored other stored tensors that the formula reads, as they were before the fold */
  constructor(
    readonly task: FoldTask,
    readonly base: Tensor,
    params: ReadonlyMap<string, Tensor>,
    readonly evaluator: FormulaEvaluator,
    computeDtype: ComputeDType,
    stored: (value: Value) => Tensor | undefined = payloadOf,
  ) {
    this.byteLength = byteSize(base.dtype, countOf(base.dims));
    this.#weight = new WeightToFold(task, base, params, evaluator, computeDtype, stored);
  }

  read(): Uint8Array {
    return fail('E_INVALID_GRAPH', {
      message: 'A folded weight is computed on demand and cannot be read in place',
      where: this.task.target.label,
    });
  }

  async *stream(): AsyncGenerator<Uint8Array> {
    for await (const piece of this.#pieces()) {
      try {
        yield piece.bytes;
      } finally {
        this.evaluator.handed.add(piece);
      }
    }
  }

  /** All bytes, for a reader that needs them together. Pieces of a `stream` stay as they are meanwhile. */
  async bytes(): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.byteLength);
    let at = 0;
    for await (const piece of this.#pieces()) {
      bytes.set(piece.bytes, at);
      at += piece.bytes.length;
      piece.free();
    }
    return bytes;
  }

  async *#pieces(): AsyncGenerator<Piece> {
    const meter = new FidelityMeter(this.task.target.label);
    yield* (await this.#updated(meter)) ?? formulaBlocks(this.#weight, meter);
    this.fidelity = meter.result();
  }

  /** Blocks by the kernel, where it does such formulas and is there. */
  async #updated(meter: FidelityMeter): Promise<AsyncGenerator<Piece> | undefined> {
    const formula = lowRankFormula(this.#weight);
    const kernel = formula === undefined ? undefined : this.evaluator.kernel;
    if (formula === undefined || kernel === undefined) return undefined;
    const factors = await lowRankFactors(this.#weight, formula);
    return factors === undefined ? undefined : lowRankBlocks(this.#weight, kernel, factors, meter);
  }
}
