/** What a benchmark task is: JSON in, JSON out, in a process of its own. */

/** Figures of one run by name; times in milliseconds end in `Ms`, memory in `MiB`. */
export type Figures = Readonly<Record<string, number>>;
export type Json = Readonly<Record<string, unknown>>;
export type BenchTask = (input: Json) => Promise<Json>;

/** Median; the middle value of an odd count, the lower middle of an even one. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1] ?? Number.NaN;
}

/** Median milliseconds of `runs` calls after `warmup` uncounted ones. */
export async function medianMs(call: () => Promise<unknown>, runs: number, warmup: number): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < warmup + runs; i++) {
    const start = performance.now();
    await call();
    if (i >= warmup) times.push(performance.now() - start);
  }
  return median(times);
}

/** Milliseconds of one call, with what it gave. */
export async function timed<T>(call: () => T | Promise<T>): Promise<{ ms: number; value: T }> {
  const start = performance.now();
  const value = await call();
  return { ms: performance.now() - start, value };
}
