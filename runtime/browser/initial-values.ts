/** Adapter files in a page: a view on the bytes of a safetensors file, and the same file with other numbers. */
import { fail } from '../../src/errors.js';

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

const HEADER_LENGTH = 8;
const METADATA = '__metadata__';

/**
 * The first values of an adapter (`initial.safetensors` of `peft-compile emit`), float32 tensors by key. What was
 * learned goes into a copy of the file, whose header says what the adapter is.
 */
export class InitialValues {
  readonly #bytes: Uint8Array;
  readonly #entries: ReadonlyMap<string, Entry>;
  readonly #start: number;

  /** Throws E_INVALID_DATA when the bytes are no such file. */
  constructor(bytes: Uint8Array) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const length = bytes.byteLength < HEADER_LENGTH ? Number.NaN : Number(view.getBigUint64(0, true));
    this.#start = HEADER_LENGTH + length;
    if (!(this.#start <= bytes.byteLength)) broken('its header does not fit into it');
    this.#entries = readHeader(bytes.subarray(HEADER_LENGTH, this.#start), bytes.byteLength - this.#start);
    this.#bytes = bytes;
  }

  /** A copy of one tensor. Throws E_INVALID_DATA when the file does not hold `count` float32 numbers under the key. */
  numbers(key: string, count: number): Float32Array {
    const bytes = this.#range(key, count);
    return new Float32Array(this.#bytes.slice(bytes.from, bytes.to).buffer);
  }

  /** The file with these tensors in place of its own. */
  with(tensors: ReadonlyMap<string, Float32Array>): Uint8Array<ArrayBuffer> {
    const copy = new Uint8Array(this.#bytes);
    for (const [key, numbers] of tensors) {
      const { from } = this.#range(key, numbers.length);
      copy.set(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength), from);
    }
    return copy;
  }

  #range(key: string, count: number): { from: number; to: number } {
    const entry = this.#entries.get(key);
    if (entry === undefined) broken(`it holds no tensor '${key}'`);
    const [from, to] = entry.data_offsets;
    if (entry.dtype !== 'F32' || to - from !== count * Float32Array.BYTES_PER_ELEMENT)
      broken(`'${key}' is ${entry.dtype} of ${to - from} bytes, not ${count} float32 numbers`);
    return { from: this.#start + from, to: this.#start + to };
  }
}

function readHeader(bytes: Uint8Array, payload: number): Map<string, Entry> {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    broken('its header is no JSON');
  }
  if (typeof header !== 'object' || header === null) broken('its header is no object');
  const entries = new Map<string, Entry>();
  for (const [key, entry] of Object.entries(header as Record<string, Entry | null>)) {
    if (key === METADATA) continue;
    const [from, to] = entry?.data_offsets ?? [Number.NaN, Number.NaN];
    if (!(Number.isSafeInteger(from) && Number.isSafeInteger(to) && 0 <= from && from <= to && to <= payload))
      broken(`'${key}' lies outside of it`);
    entries.set(key, entry as Entry);
  }
  return entries;
}

function broken(what: string): never {
  return fail('E_INVALID_DATA', {
    message: `The adapter file cannot be read: ${what}`,
    remedy: 'Give initial.safetensors of the folder that peft-compile emit wrote',
  });
}
