/** Frozen weights in half precision: converted when they are read, so that no float32 copy is made. */

import { narrow, widen as widenCodes } from '../../src/halves.js';
import type { Tensor, TensorData } from '../../src/tensor.js';

export type HalfDType = 'float16' | 'bfloat16';

/** Largest finite number of a dtype. */
export const LARGEST: Readonly<Record<HalfDType, number>> = {
  float16: 65504,
  bfloat16: (2 - 2 ** -7) * 2 ** 127,
};

/** Smallest number with all its digits. */
export const SMALLEST: Readonly<Record<HalfDType, number>> = { float16: 2 ** -14, bfloat16: 2 ** -126 };

type Source = HalfDType | 'float32';

/**
 * What a finite number beyond the range becomes: half of the largest, so that two of them, or one and an attention score,
 * still have a finite sum.
 */
export function saturated(value: number, dtype: HalfDType): number {
  if (!Number.isFinite(value) || Math.abs(value) <= LARGEST[dtype]) return value;
  return Math.sign(value) * limitOf(dtype);
}

export function limitOf(dtype: HalfDType): number {
  return LARGEST[dtype] / 2;
}

class LoweredData implements TensorData {
  readonly #source: TensorData;
  readonly #from: Source;
  readonly #to: HalfDType;
  readonly #width: number;
  readonly stream?: () => AsyncIterable<Uint8Array>;

  constructor(source: TensorData, from: Source, to: HalfDType) {
    this.#source = source;
    this.#from = from;
    this.#to = to;
    this.#width = from === 'float32' ? 4 : 2;
    if (source.stream !== undefined) this.stream = () => this.#pieces();
  }

  get byteLength(): number {
    return (this.#source.byteLength / this.#width) * 2;
  }

  get inline(): Uint8Array | undefined {
    const { inline } = this.#source;
    return inline === undefined ? undefined : this.#converted(inline);
  }

  read(offset: number, length: number): Uint8Array {
    const first = Math.floor(offset / 2);
    const end = Math.min(Math.ceil((offset + length) / 2), this.byteLength / 2);
    const bytes = this.#source.read(first * this.#width, (end - first) * this.#width);
    const start = offset - 2 * first;
    return this.#converted(bytes).subarray(start, start + length);
  }

  async *#pieces(): AsyncGenerator<Uint8Array> {
    // A piece may end inside a number.
    let rest: Uint8Array = new Uint8Array(0);
    for await (const piece of this.#source.stream?.() ?? []) {
      const all = new Uint8Array(rest.length + piece.length);
      all.set(rest);
      all.set(piece, rest.length);
      const whole = all.length - (all.length % this.#width);
      rest = all.subarray(whole);
      if (whole > 0) yield this.#converted(all.subarray(0, whole));
    }
  }

  #converted(bytes: Uint8Array): Uint8Array {
    const aligned = bytes.slice();
    const numbers =
      this.#from === 'float32'
        ? new Float32Array(aligned.buffer)
        : widenCodes(this.#from, new Uint16Array(aligned.buffer));
    const largest = LARGEST[this.#to];
    for (const [i, value] of numbers.entries())
      if (Math.abs(value) > largest) numbers[i] = saturated(value, this.#to);
    return new Uint8Array(narrow(this.#to, numbers).buffer);
  }
}

const known = new WeakMap<TensorData, Map<HalfDType, TensorData>>();

/** The tensor in half precision; the same payload for the same source, so that graphs go on sharing it. */
export function loweredTensor(tensor: Tensor, to: HalfDType): Tensor {
  const { dtype, dims, data } = tensor;
  if (dtype === to || (dtype !== 'float32' && dtype !== 'float16' && dtype !== 'bfloat16')) return tensor;
  const made = known.get(data) ?? new Map<HalfDType, TensorData>();
  known.set(data, made);
  const lowered = made.get(to) ?? new LoweredData(data, dtype, to);
  made.set(to, lowered);
  return { dtype: to, dims, data: lowered };
}
