/** Which examples each optimizer step sees: a pure function of the step number, so that any step can be resumed. */
import { epochOrder } from '../data/dataset.js';

export interface PlanOptions {
  readonly examples: number;
  readonly batchSize: number;
  /** Micro-batches per optimizer step. */
  readonly accumulation: number;
  /** Leave out the examples that do not fill a batch at the end of an epoch. */
  readonly dropLast: boolean;
  readonly shuffle: boolean;
  readonly seed: number;
}

export interface PlannedStep {
  /** From 0. */
  readonly epoch: number;
  /** Indices of the examples, one list per micro-batch. */
  readonly batches: readonly (readonly number[])[];
  /** Forward passes before this step, since the start of the run: distinguishes dropout seeds. */
  readonly forwardPasses: number;
}

export class Plan {
  readonly #options: PlanOptions;
  readonly #batchesPerEpoch: number;
  readonly stepsPerEpoch: number;
  #order: { epoch: number; indices: Uint32Array } | undefined;

  constructor(options: PlanOptions) {
    this.#options = options;
    const { examples, batchSize, accumulation, dropLast } = options;
    this.#batchesPerEpoch = dropLast ? Math.floor(examples / batchSize) : Math.ceil(examples / batchSize);
    this.stepsPerEpoch = Math.ceil(this.#batchesPerEpoch / accumulation);
  }

  /** Step `step`, counted from 1. */
  at(step: number): PlannedStep {
    const { batchSize, accumulation, examples } = this.#options;
    const epoch = Math.floor((step - 1) / this.stepsPerEpoch);
    const first = ((step - 1) % this.stepsPerEpoch) * accumulation;
    const order = this.#epoch(epoch);
    const batches: number[][] = [];
    for (let batch = first; batch < Math.min(first + accumulation, this.#batchesPerEpoch); batch++)
      batches.push([...order.subarray(batch * batchSize, Math.min((batch + 1) * batchSize, examples))]);
    return { epoch, batches, forwardPasses: epoch * this.#batchesPerEpoch + first };
  }

  #epoch(epoch: number): Uint32Array {
    if (this.#order?.epoch !== epoch) {
      const { examples, seed, shuffle } = this.#options;
      this.#order = { epoch, indices: epochOrder(examples, seed, epoch, shuffle) };
    }
    return this.#order.indices;
  }
}
