/** Payloads of a weight that is being quantised: computed together, when the first of them is written. */

import type { QuantizedMatrix } from '../../passes/quantize/matrix.js';
import type { FloatSource, QuantizedPayloads } from '../../passes/quantize/quantize.js';
import { fail } from '../../src/errors.js';
import type { TensorData } from '../../src/tensor.js';
import { loadTensor, numbersOf } from '../host-tensor.js';
import { type EncodedMatrix, encode } from './codec.js';
import { EncodedParts, type Part } from './encoded-parts.js';

export interface WeightAccuracy {
  /** ‖Q − W‖₂ / ‖W‖₂ */
  readonly relativeError: number;
  /** Largest |Q − W|. */
  readonly largestError: number;
}

export class QuantizingWeight implements QuantizedPayloads {
  accuracy: WeightAccuracy | undefined;
  #matrix: QuantizedMatrix | undefined;
  readonly #parts: EncodedParts;

  constructor(readonly source: FloatSource) {
    this.#parts = new EncodedParts(source.value.label, () => this.#compute());
  }

  bind(matrix: QuantizedMatrix): void {
    this.#matrix = matrix;
  }

  data(part: Part, byteLength: number): TensorData {
    return this.#parts.data(part, byteLength);
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
    return encoded;
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
