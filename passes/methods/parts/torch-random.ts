/**
 * What torch's generator on the processor draws: numbers that a PEFT file leaves out because a seed says them. MT19937
 * (Matsumoto and Nishimura 1998) as `Generator.manual_seed` starts it, and `randperm` by Fisher and Yates.
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
