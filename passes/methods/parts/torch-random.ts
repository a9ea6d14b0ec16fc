/**
 * What torch's generator on the processor draws: numbers that a PEFT file leaves out because a seed says them. MT19937
 * (Matsumoto and Nishimura 1998) as `Generator.manual_seed` starts it, `randperm` by Fisher and Yates, and `normal` by
 * Box and Muller.
 */

const SIZE = 624;
const SHIFT = 397;

/** 32-bit numbers of MT19937 for a seed. */
export function mersenneTwister(seed: number): () => number {
  const state = new Uint32Array(SIZE);
  state[0] = seed >>> 0;
  for (let i = 1; i < SIZE; i++) {
    const before = state[i - 1] as number;
    state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
  }
  let at = SIZE;
  const refill = () => {
    for (let i = 0; i < SIZE; i++) {
      const bits = ((state[i] as number) & 0x80000000) | ((state[(i + 1) % SIZE] as number) & 0x7fffffff);
      const twist = (bits >>> 1) ^ ((bits & 1) === 0 ? 0 : 0x9908b0df);
      state[i] = (state[(i + SHIFT) % SIZE] as number) ^ twist;
    }
    at = 0;
  };
  return () => {
    if (at === SIZE) refill();
    let y = state[at++] as number;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** From this many entries on torch draws 64 bits at a time. */
export const LONGEST = Math.floor(0xffffffff / 20);

/** The first numbers of `torch.randperm(length, generator=torch.Generator().manual_seed(seed))`; length below `LONGEST`. */
export function randomPlaces(length: number, seed: number, count: number): number[] {
  const next = mersenneTwister(seed);
  // Entries that stand where they began are not written down: few change before the first `count` are settled.
  const moved = new Map<number, number>();
  const places: number[] = [];
  for (let i = 0; i < count; i++) {
    const other = i < length - 1 ? i + (next() % (length - i)) : i;
    places.push(moved.get(other) ?? other);
    moved.set(other, moved.get(i) ?? i);
  }
  return places;
}

/** Entries that torch makes of as many uniform numbers at a time. */
const CHUNK = 16;

/** `torch.normal(0, 1, (count,), generator=torch.Generator().manual_seed(seed))` in float32, up to its rounding. */
export function normals(seed: number, count: number): Float64Array {
  const next = mersenneTwister(seed);
  return count < CHUNK ? fewNormals(next, count) : manyNormals(next, count);
}

/** Half a chunk of radii, half a chunk of angles; a last chunk that is not full is drawn anew, over the one before it. */
function manyNormals(next: () => number, count: number): Float64Array {
  const uniform = () => (next() & 0xffffff) / 2 ** 24;
  const drawn = Float64Array.from({ length: count }, uniform);
  const half = CHUNK / 2;
  const transform = (start: number) => {
    for (let i = start; i < start + half; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - (drawn[i] as number)));
      const angle = 2 * Math.PI * (drawn[i + half] as number);
      drawn[i] = radius * Math.cos(angle);
      drawn[i + half] = radius * Math.sin(angle);
    }
  };
  for (let start = 0; start + CHUNK <= count; start += CHUNK) transform(start);
  if (count % CHUNK !== 0) {
    for (let i = count - CHUNK; i < count; i++) drawn[i] = uniform();
    transform(count - CHUNK);
  }
  return drawn;
}

/** In pairs, of numbers with 53 bits. */
function fewNormals(next: () => number, count: number): Float64Array {
  const uniform = () => {
    const [high, low] = [next(), next()];
    return ((high & 0x1fffff) * 2 ** 32 + low) / 2 ** 53;
  };
  const drawn = new Float64Array(count);
  for (let i = 0; i < count; i += 2) {
    const angle = 2 * Math.PI * uniform();
    const radius = Math.sqrt(-2 * Math.log1p(-uniform()));
    drawn[i] = radius * Math.cos(angle);
    if (i + 1 < count) drawn[i + 1] = radius * Math.sin(angle);
  }
  return drawn;
}
