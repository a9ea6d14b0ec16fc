/** Payloads of a quantised weight after a fold: computed together, when the first of them is written. */
import { payloadOf } from '../../passes/sites/index.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import type { Tensor } from '../../src/tensor.js';
import { byteSize, countOf } from '../../src/types.js';
import type { Fidelity } from '../fold/fidelity.js';
import type { FoldedData } from '../fold/folded-tensor.js';
import { numbersOf } from '../host-tensor.js';
import type { Requantised } from './choice.js';
import { decode, type EncodedMatrix, encode, loadMatrix } from './codec.js';
import { EncodedParts, type Part } from './encoded-parts.js';

/** What storing the folded numbers as integers does to them. */
export interface RequantisedFidelity extends Fidelity {
  /** Share of codes that are the base's. */
  readonly unchanged: number;
}

export class RequantisedWeight {
  fidelity: RequantisedFidelity | undefined;
  readonly #parts: EncodedParts;

  constructor(
    readonly requantised: Requantised,
    /** The folded floats. */
    readonly floats: FoldedData,
  ) {
    this.#parts = new EncodedParts(requantised.stored.codes.label, () => this.#compute());
  }

  /** New payloads by the value that holds them. */
  payloads(): Map<Value, Tensor> {
    const { codes, scales, zeroPoints } = this.requantised.stored;
    const parts: readonly (readonly [Value | undefined, Part])[] = [
      [codes, 'codes'],
      [scales, 'scales'],
      [zeroPoints, 'zeroPoints'],
    ];
    return new Map(
      parts.flatMap(([value, part]) => {
        const tensor = value === undefined ? undefined : payloadOf(value);
        return value === undefined || tensor === undefined
          ? []
          : [
              [
                value,
                { ...tensor, data: this.#parts.data(part, byteSize(tensor.dtype, countOf(tensor.dims))) },
              ],
            ];
      }),
    );
  }

  async #compute(): Promise<EncodedMatrix> {
    const { from } = this.requantised.from;
    const folded = unflipped(await this.#folded(), from.rows, from.columns, this.requantised.from.flipped);
    const base = loadMatrix(from);
    const before = decode(from, base);
    const encoded = encode(from, folded, base);
    let [update, lost, size] = [0, 0, 0];
    for (const [i, value] of folded.entries()) {
      const original = before[i] ?? 0;
      size += original ** 2;
      update += (value - original) ** 2;
      lost += ((encoded.values[i] ?? 0) - value) ** 2;
    }
    if (!Number.isFinite(size + update))
      fail('E_NON_FINITE', {
        message: 'The folded weight holds numbers that are not finite, which no integer stands for',
        where: this.requantised.stored.codes.label,
        remedy: 'Check the adapter, or fold with --quantised dequantise',
      });
    this.fidelity = {
      relativeUpdate: size === 0 ? 0 : Math.sqrt(update / size),
      unchanged: encoded.unchanged,
      updateError: update === 0 ? 0 : Math.sqrt(lost / update),
    };
    return encoded;
  }

  async #folded(): Promise<Float32Array> {
    const { dtype, dims } = this.floats.base;
    const numbers = numbersOf({ dtype, dims, data: await this.floats.bytes() });
    return numbers instanceof Float32Array ? numbers : Float32Array.from(numbers);
  }
}

/** [rows, columns] of what may be [columns, rows]. */
function unflipped(values: Float32Array, rows: number, columns: number, flipped: boolean): Float32Array {
  if (!flipped) return values;
  const result = new Float32Array(values.length);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      result[row * columns + column] = values[column * rows + row] ?? 0;
  return result;
}
