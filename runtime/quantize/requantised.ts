/** Payloads of a quantised weight after a fold: computed together, when the first of them is written. */
import { payloadOf } from '../../passes/sites/index.js';
import type { Value } from '../../src/graph.js';
import type { Tensor, TensorData } from '../../src/tensor.js';
import { byteSize } from '../../src/types.js';
import type { Fidelity } from '../fold/fidelity.js';
import type { FoldedData } from '../fold/folded-tensor.js';
import { countOf, numbersOf } from '../host-tensor.js';
import type { Requantised } from './choice.js';
import { decode, type EncodedMatrix, encode, loadMatrix } from './codec.js';

type Part = 'codes' | 'scales' | 'zeroPoints';

/** What storing the folded numbers as integers does to them. */
export interface RequantisedFidelity extends Fidelity {
  /** Share of codes that are the base's. */
  readonly unchanged: number;
}

export class RequantisedWeight {
  fidelity: RequantisedFidelity | undefined;
  #known: EncodedMatrix | undefined;

  constructor(
    readonly requantised: Requantised,
    /** The folded floats. */
    readonly floats: FoldedData,
  ) {}

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
          : [[value, { ...tensor, data: this.#data(part, byteSize(tensor.dtype, countOf(tensor.dims))) }]];
      }),
    );
  }

  #data(part: Part, byteLength: number): TensorData {
    const bytes = () => this.#part(part);
    return {
      byteLength,
      read: () => {
        throw new Error('A requantised weight is computed while it is written');
      },
      async *stream() {
        yield await bytes();
      },
    };
  }

  /** Codes are dropped once they are written; should they be asked for again, all is computed again. */
  async #part(part: Part): Promise<Uint8Array> {
    const known = this.#known ?? (await this.#compute());
    const bytes = known[part] ?? new Uint8Array();
    this.#known = part === 'codes' ? undefined : known;
    return bytes;
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
    this.fidelity = {
      relativeUpdate: size === 0 ? 0 : Math.sqrt(update / size),
      unchanged: encoded.unchanged,
      updateError: update === 0 ? 0 : Math.sqrt(lost / update),
    };
    this.#known = { ...encoded, values: new Float32Array() };
    return this.#known;
  }

  async #folded(): Promise<Float32Array> {
    const { dtype, dims } = this.floats.base;
    const bytes = new Uint8Array(this.floats.byteLength);
    let at = 0;
    for await (const chunk of this.floats.stream()) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    const numbers = numbersOf({ dtype, dims, data: bytes });
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
