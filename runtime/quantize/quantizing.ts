/** Payloads of a weight that is being quantised: computed together, when the first of them is written. */

import type { QuantizedParts } from '../../passes/quantize/formats.js';
import type { QuantizedMatrix } from '../../passes/quantize/matrix.js';
import type { FloatSource, QuantizedPayloads } from '../../passes/quantize/quantize.js';
import { fail } from '../../src/errors.js';
import type { TensorData } from '../../src/tensor.js';
import { loadTensor, numbersOf } from '../host-tensor.js';
import { type EncodedMatrix, encode } from './codec.js';

export interface WeightAccuracy {
  /** ‖Q − W‖₂ / ‖W‖₂ */
  readonly relativeError: number;
  /** Largest |Q − W|. */
  readonly largestError: number;
}

export class QuantizingWeight implements QuantizedPayloads {
  accuracy: WeightAccuracy | undefined;
  #matrix: QuantizedMatrix | undefined;
  #known: EncodedMatrix | undefined;

  constructor(readonly source: FloatSource) {}

  bind(matrix: QuantizedMatrix): void {
    this.#matrix = matrix;
  }

  data(part: keyof QuantizedParts, byteLength: number): TensorData {
    const bytes = () => this.#part(part);
    return {
      byteLength,
      read: () =>
        fail('E_INVALID_GRAPH', {
          message: 'A quantised weight is computed while it is written',
          where: this.source.value.label,
        }),
      async *stream() {
        yield await bytes();
      },
    };
  }

  /** Codes are dropped once they are written, so that one weight is in memory. */
  async #part(part: keyof QuantizedParts): Promise<Uint8Array> {
    const known = this.#known ?? (await this.#compute());
    const bytes = known[part] ?? new Uint8Array();
    this.#known = part === 'codes' ? { ...known, codes: new Uint8Array() } : known;
    return bytes;
  }

  async #compute(): Promise<EncodedMatrix> {
    const matrix = this.#matrix ?? fail('E_INVALID_GRAPH', { message: 'A quantised weight has no form' });
    const floats = await this.#floats(matrix);
    const encoded = encode(matrix, floats);
    let [size, lost, largest] = [0, 0, 0];
    for (let i = 0; i < floats.length; i++) {
      const value = floats[i] ?? 0;
      const error = (encoded.values[i] ?? 0) - value;
      size += value * value;
      lost += error * error;
      largest = Math.max(largest, Math.abs(error));
    }
    if (!Number.isFinite(size))
      fail('E_NON_FINITE', {
        message: 'The weight holds numbers that are not finite',
        where: this.source.value.label,
        remedy: 'Leave this module out with --exclude',
      });
    this.accuracy = { relativeError: size === 0 ? 0 : Math.sqrt(lost / size), largestError: largest };
    this.#known = { ...encoded, values: new Float32Array() };
    return this.#known;
  }

  /** The weight [rows, columns] of the matrix. */
  async #floats({ rows, columns, transposed }: QuantizedMatrix): Promise<Float32Array> {
    const { tensor, scale, transposed: stored } = this.source;
    const numbers = numbersOf(await loadTensor(tensor));
    const same = stored === transposed;
    const floats = new Float32Array(rows * columns);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        floats[row * columns + column] =
          (numbers[same ? row * columns + column : column * rows + row] ?? 0) * scale;
    return floats;
  }
}
