/** A part of something long. */
export interface Stretch {
  readonly at: number;
  readonly size: number;
}

/** So many bytes, or rows, in stretches of `most` and a last one that may be shorter. */
export function* stretches(length: number, most: number): Generator<Stretch> {
  for (let at = 0; at < length; at += most) yield { at, size: Math.min(most, length - at) };
}
