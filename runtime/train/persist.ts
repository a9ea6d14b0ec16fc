/**
 * Writes a result that an interrupt must not cost: an interrupt removes the half-written file, so a write that was under
 * way when the signal came is done once more, whole.
 */
export async function persist<T>(signal: AbortSignal | undefined, write: () => Promise<T>): Promise<T> {
  const interrupted = signal?.aborted ?? false;
  try {
    return await write();
  } catch (error) {
    if (interrupted || signal?.aborted !== true) throw error;
    return write();
  }
}
