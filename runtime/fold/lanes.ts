/** Buffers that go round while a model is folded: to the other thread, to the disk, and back. */

/** Pieces that were handed over and may still be on their way to the disk (see `pump`). */
const UNDER_WAY = 2;
/** Buffers that are kept, and the size from which one is left to the collector. */
const KEPT = 12;
const LARGE = 4 << 20;

export class Lanes {
  readonly #idle: Uint8Array[] = [];
  readonly #handed: Uint8Array[] = [];

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

  /** The writer has taken the next piece, and is done with those before the last few. */
  handed(buffer: Uint8Array): void {
    this.#handed.push(buffer);
    if (this.#handed.length > UNDER_WAY) this.free(this.#handed.shift() as Uint8Array);
  }
}
