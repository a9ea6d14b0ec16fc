/** Buffers that go round while a model is folded: to the other thread, to the disk, and back. */

/** Buffers that are kept, and the size from which one is left to the collector. */
const KEPT = 12;
const LARGE = 4 << 20;

export class Lanes {
  readonly #idle: Uint8Array[] = [];

  /** A buffer of its own; what is in it is left over. */
  take(length: number): Uint8Array {
    const at = this.#idle.findIndex(({ byteLength }) => byteLength === length);
    return at < 0 ? new Uint8Array(length) : (this.#idle.splice(at, 1)[0] as Uint8Array);
  }

  free(buffer: Uint8Array): void {
    if (buffer.byteLength > LARGE) return;
    this.#idle.push(buffer);
    // Sizes change from tensor to tensor: those that nobody asks for any more go first.
    if (this.#idle.length > KEPT) this.#idle.shift();
  }
}
