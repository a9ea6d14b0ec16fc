/** Work that goes on in another thread while its results are looked at one after the other. */

/** Results in the order of `items`, up to `count` of them under way. The rest is waited for when the reader stops early. */
export async function* ahead<T, R>(
  items: Iterable<T>,
  count: number,
  start: (item: T) => Promise<R>,
): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  const take = (): Promise<R> => running.shift() as Promise<R>;
  try {
    for (const item of items) {
      const started = start(item);
      // Awaited in order; one that fails behind another that failed says nothing new.
      started.catch(() => {});
      if (running.push(started) === count) yield await take();
    }
    while (running.length > 0) yield await take();
  } finally {
    await Promise.allSettled(running);
  }
}
