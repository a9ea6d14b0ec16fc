/** What a benchmark task is: input as JSON, figures as numbers. */
export type Figures = Readonly<Record<string, number>>;
export type BenchTask = (input: Readonly<Record<string, unknown>>) => Promise<Figures>;

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
