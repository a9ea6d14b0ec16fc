/** Work that others do (threads, the system) while its results are looked at one after the other. */

/**
 * Results in the order of `items`, up to `count` of them under way.
 * @param drop given what was under way and nobody takes, because the reader stopped early or another item failed
 */
export async function* ahead<T, R>(
  items: Iterable<T>,
  count: number,
  start: (item: T) => Promise<R>,
  drop: (result: R) => void = () => {},
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
    for (const result of await Promise.allSettled(running))
      if (result.status === 'fulfilled') drop(result.value);
  }
}
