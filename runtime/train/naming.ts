/** Names the examples that a failure came from. */
import { PeftCompileError } from '../../src/errors.js';

/** The first few places, and how many more there are. */
export function listed(where: readonly string[]): string {
  const shown = where.slice(0, 4).join('; ');
  return where.length > 4 ? `${shown}; and ${where.length - 4} more examples` : shown;
}

/** Runs a graph on a batch; an error of ONNX Runtime is passed on with the examples in it. */
export async function naming<T>(where: readonly string[], run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    if (!(cause instanceof PeftCompileError && CAUSED_BY_DATA.has(cause.code))) throw cause;
    throw new PeftCompileError(cause.code, {
      message: `A batch could not be computed: ${cause.message}`,
      where: listed(where),
      cause,
    });
  }
}

const CAUSED_BY_DATA: ReadonlySet<string> = new Set(['E_RUNTIME', 'E_INVALID_DATA', 'E_TYPE']);
