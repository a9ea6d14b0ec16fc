/** Which operators of a mixed-precision graph stay float32 for want of kernels. */
import type { HalfDType } from '../../passes/precision/lowered-tensor.js';
import type { PrecisionOptions } from '../../passes/precision/options.js';
import { fail } from '../../src/errors.js';
import { PROVIDERS, providerOf } from './index.js';

/**
 * What to ask of a target for graphs that run on a provider; without one, on every provider that has the dtype.
 * Throws E_UNSUPPORTED where the provider has none.
 */
export function precisionFor(dtype: HalfDType, ep?: string): PrecisionOptions {
  const having = [...PROVIDERS.values()].filter(({ withoutHalf }) => withoutHalf?.[dtype] !== undefined);
  if (ep === undefined)
    return {
      dtype,
      float32: new Set(having.flatMap(({ withoutHalf }) => [...(withoutHalf?.[dtype] ?? [])])),
    };
  const { title, withoutHalf } = providerOf(ep);
  const float32 = withoutHalf?.[dtype];
  if (float32 !== undefined) return { dtype, float32 };
  const other = Object.keys(withoutHalf ?? {}).map((known) => `--precision ${known}, `);
  return fail('E_UNSUPPORTED', {
    message: `${title} does not compute in ${dtype}`,
    remedy: `Use ${other.join('')}no --precision, or --ep ${having.map(({ id }) => id).join(', ')}`,
  });
}
