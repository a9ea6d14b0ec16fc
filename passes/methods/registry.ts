/** The methods that ship with the package. A method of one's own is passed as an object instead of an id. */
import { fail } from '../../src/errors.js';
import { didYouMean } from '../../src/nearest.js';
import lora from './lora.js';
import type { Method } from './method.js';

export const METHODS: readonly Method[] = [lora];

/**
 * The method itself, or the one of that id: of one's own first, then of those shipped. Throws E_NO_MATCH with the
 * nearest id.
 */
export function resolveMethod(method: Method | string, own: readonly Method[] = []): Method {
  if (typeof method !== 'string') return method;
  const known = [...own, ...METHODS];
  return (
    known.find(({ id }) => id === method) ??
    fail('E_NO_MATCH', {
      message: `There is no method '${method}'`,
      remedy: didYouMean(
        method,
        known.map(({ id }) => id),
      ),
    })
  );
}
