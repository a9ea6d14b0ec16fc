/** The methods that ship with the package. A method of one's own is passed as an object instead of an id. */
import { fail } from '../../src/errors.js';
import { didYouMean } from '../../src/nearest.js';
import lora from './lora.js';
import type { Method } from './method.js';

export const METHODS: readonly Method[] = [lora];

/** The method itself, or the shipped one of that id. Throws E_NO_MATCH with the nearest id. */
export function resolveMethod(method: Method | string, methods: readonly Method[] = METHODS): Method {
  if (typeof method !== 'string') return method;
  return (
    methods.find(({ id }) => id === method) ??
    fail('E_NO_MATCH', {
      message: `There is no method '${method}'`,
      remedy: didYouMean(
        method,
        methods.map(({ id }) => id),
      ),
    })
  );
}
