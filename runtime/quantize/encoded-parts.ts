/** The tensors of one stored matrix as payloads: computed together, when the first of them is written. */
import type { QuantizedParts } from '../../passes/quantize/formats.js';
import { fail } from '../../src/errors.js';
import type { TensorData } from '../../src/tensor.js';
import type { EncodedMatrix } from './codec.js';

export type Part = keyof QuantizedParts;

export class EncodedParts {
  readonly #known = new Map<Part, Uint8Array>();

  constructor(
    /** Named in errors. */
    readonly where: string,
    readonly compute: () => Promise<EncodedMatrix>,
  ) {}

  /** One of the tensors; its bytes can be had by streaming alone. */
  data(part: Part, byteLength: number): TensorData {
    const bytes = () => this.#part(part);
    const read = (): never =>
      fail('E_INVALID_GRAPH', {
        message: 'A quantised weight is computed while it is written',
        where: this.where,
        remedy: 'Write the model, and read the file',
      });
    return {
      byteLength,
      read,
      async *stream() {
        yield await bytes();
      },
    };
  }

  /** Codes are dropped once they are written, so that those of one weight are in memory. */
  async #part(part: Part): Promise<Uint8Array> {
    if (!this.#known.has(part)) {
      const encoded = await this.compute();
      for (const one of ['codes', 'scales', 'zeroPoints'] as const)
        this.#known.set(one, encoded[one] ?? new Uint8Array());
    }
    const bytes = this.#known.get(part) ?? new Uint8Array();
    if (part === 'codes') this.#known.delete(part);
    return bytes;
  }
}
