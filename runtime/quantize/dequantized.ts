/** Float payloads of quantised matrices: computed when they are read, one matrix in memory at a time. */
import type { Dequantizer } from '../../passes/quantize/dequantize.js';
import type { QuantizedMatrix } from '../../passes/quantize/matrix.js';
import { payloadOf } from '../../passes/sites/index.js';
import type { TensorData } from '../../src/tensor.js';
import { byteSize, countOf, type DType } from '../../src/types.js';
import { tensorOfNumbers } from '../host-tensor.js';
import { decode, loadMatrix } from './codec.js';

/** Numbers of the matrix that was read last. */
interface Slot {
  owner?: DequantizedData;
  bytes?: Uint8Array;
}

export class DequantizedData implements TensorData {
  readonly byteLength: number;

  constructor(
    readonly matrix: QuantizedMatrix,
    readonly flipped: boolean,
    readonly dtype: DType,
    readonly slot: Slot,
  ) {
    this.byteLength = byteSize(dtype, matrix.rows * matrix.columns);
  }

  read(offset: number, length: number): Uint8Array {
    return this.#all().subarray(offset, offset + length);
  }

  #all(): Uint8Array {
    const { slot, matrix, dtype } = this;
    if (slot.owner === this && slot.bytes !== undefined) return slot.bytes;
    delete slot.bytes;
    const values = decode(matrix, loadMatrix(matrix), this.flipped);
    const bytes =
      dtype === 'float32'
        ? new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
        : tensorOfNumbers(dtype, [values.length], values).data;
    slot.owner = this;
    slot.bytes = bytes;
    return bytes;
  }
}

/** Payloads that share one place in memory. They are stored in the dtype of the scales. */
export function dequantizer(): Dequantizer {
  const slot: Slot = {};
  return (matrix, dims, flipped) => {
    const dtype = payloadOf(matrix.scales)?.dtype ?? 'float32';
    if (countOf(dims) !== matrix.rows * matrix.columns)
      throw new Error('A matrix has other dims than its codes');
    return { dtype, dims, data: new DequantizedData(matrix, flipped, dtype, slot) };
  };
}
