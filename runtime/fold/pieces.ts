/** Bytes of a folded weight on their way to the disk, in memory that goes round. */
import { PIECES_IN_USE } from '../../src/tensor.js';

export interface Piece {
  readonly bytes: Uint8Array;
  /** Gives the memory back. */
  free(): void;
}

/** Pieces that the writer has: when it asks for the next one it is done with those before the last few. */
export class HandedPieces {
  readonly #handed: Piece[] = [];

  add(piece: Piece): void {
    this.#handed.push(piece);
    if (this.#handed.length > PIECES_IN_USE) this.#handed.shift()?.free();
  }
}
