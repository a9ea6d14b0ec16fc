/** Memory of the kernel's threads and of this one: regions of it go round, from thread to thread and to the disk. */
import { fail } from '../../../src/errors.js';
import { type Memory, PAGE } from './engine.js';

/** Vectors need no alignment, but are loaded quicker where they have one. */
const ALIGNMENT = 64;

export interface Region {
  readonly address: number;
  readonly capacity: number;
}

export class Regions {
  readonly #memory: Memory;
  readonly #idle: Region[] = [];
  #end = 0;

  constructor(memory: Memory) {
    this.#memory = memory;
  }

  /** The smallest idle region that has room for so many bytes, or a new one. What is in it is left over. */
  take(bytes: number): Region {
    let best = -1;
    for (const [index, { capacity }] of this.#idle.entries())
      if (capacity >= bytes && capacity < (this.#idle[best]?.capacity ?? Number.POSITIVE_INFINITY))
        best = index;
    if (best >= 0) return this.#idle.splice(best, 1)[0] as Region;
    const region = { address: this.#end, capacity: Math.ceil(bytes / ALIGNMENT) * ALIGNMENT };
    this.#reach(region.address + region.capacity);
    this.#end = region.address + region.capacity;
    return region;
  }

  free(region: Region): void {
    this.#idle.push(region);
  }

  // Views of a region from one of its bytes.

  bytes({ address }: Region, offset: number, length: number): Uint8Array {
    return new Uint8Array(this.#memory.buffer, address + offset, length);
  }

  floats({ address }: Region, offset: number, count: number): Float32Array {
    return new Float32Array(this.#memory.buffer, address + offset, count);
  }

  #reach(end: number): void {
    const missing = Math.ceil((end - this.#memory.buffer.byteLength) / PAGE);
    if (missing <= 0) return;
    try {
      this.#memory.grow(missing);
    } catch (cause) {
      fail('E_RUNTIME', {
        message: `Memory ran out when ${missing * PAGE} bytes more were needed to fold`,
        remedy: 'Close other programs, or fold where there is more memory.',
        cause,
      });
    }
  }
}
