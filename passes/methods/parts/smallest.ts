/**
 * The weights of smallest magnitude among many tensors, exactly and without holding or sorting them: magnitudes are the
 * bits of float32 without the sign, which are ordered as the numbers are. One pass counts the upper 16 of these 31 bits,
 * a second one the lower 15 within the bucket that holds the bound, a third one what lies in each tensor.
 */

/** What to take of a tensor: everything below `threshold`, and the first `ties` entries of exactly that magnitude. */
export interface Selection {
  readonly threshold: number;
  readonly ties: number;
  /** How many that are in all. */
  readonly count: number;
}

/** A tensor as a stream of blocks that can be started again. */
export type Blocks = () => AsyncIterable<Float32Array>;

const LOWER = 15;

/**
 * The floor(ratio·n) smallest of all tensors together. Equal magnitudes at the bound are taken in the order of the
 * tensors. Undefined when that is none.
 */
export async function selectSmallest(
  tensors: readonly Blocks[],
  ratio: number,
): Promise<Selection[] | undefined> {
  const upper = new Float64Array(1 << 16);
  let total = 0;
  for (const tensor of tensors)
    for await (const block of tensor()) {
      const bits = magnitudes(block);
      total += block.length;
      for (let i = 0; i < bits.length; i++) {
        const bucket = (bits[i]! & MAGNITUDE) >>> LOWER;
        upper[bucket] = upper[bucket]! + 1;
      }
    }
  const wanted = Math.floor(ratio * total);
  if (wanted === 0) return undefined;
  const { bucket, before } = bucketOf(upper, wanted);

  const lower = new Float64Array(1 << LOWER);
  for (const tensor of tensors)
    for await (const block of tensor()) {
      const bits = magnitudes(block);
      for (let i = 0; i < bits.length; i++) {
        const magnitude = bits[i]! & MAGNITUDE;
        if (magnitude >>> LOWER !== bucket) continue;
        const rest = magnitude & ((1 << LOWER) - 1);
        lower[rest] = lower[rest]! + 1;
      }
    }
  const within = bucketOf(lower, wanted - before);
  const bound = (bucket << LOWER) | within.bucket;
  const threshold = new Float32Array(Uint32Array.of(bound).buffer)[0]!;

  let tiesLeft = wanted - before - within.before;
  const selections: Selection[] = [];
  for (const tensor of tensors) {
    let below = 0;
    let equal = 0;
    for await (const block of tensor()) {
      const bits = magnitudes(block);
      for (let i = 0; i < bits.length; i++) {
        const magnitude = bits[i]! & MAGNITUDE;
        if (magnitude < bound) below++;
        else if (magnitude === bound) equal++;
      }
    }
    const ties = Math.min(equal, tiesLeft);
    tiesLeft -= ties;
    selections.push({ threshold, ties, count: below + ties });
  }
  return selections;
}

/** Places that a selection takes of a tensor, ascending. */
export function placesOf(data: Float64Array, { threshold, ties, count }: Selection): BigInt64Array {
  const places = new BigInt64Array(count);
  let at = 0;
  let tiesLeft = ties;
  for (let i = 0; i < data.length && at < count; i++) {
    const magnitude = Math.abs(data[i]!);
    if (magnitude < threshold || (magnitude === threshold && tiesLeft-- > 0)) places[at++] = BigInt(i);
  }
  return places;
}

const MAGNITUDE = 0x7fffffff;

function magnitudes(block: Float32Array): Uint32Array {
  return new Uint32Array(block.buffer, block.byteOffset, block.length);
}

/** The bucket that holds the `wanted`-th smallest, from 1, and how many lie before it. */
function bucketOf(
  counts: Float64Array,
  wanted: number,
): { readonly bucket: number; readonly before: number } {
  let before = 0;
  let bucket = 0;
  while (before + counts[bucket]! < wanted) before += counts[bucket++]!;
  return { bucket, before };
}
