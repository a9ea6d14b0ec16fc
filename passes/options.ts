/** Options of losses and optimizers: checked once against their schema, kept as JSON for manifests. */
import { z } from 'zod';
import { fail } from '../src/errors.js';
import { describeIssues } from '../src/zod-issues.js';

export type Json = z.core.util.JSONType;

const jsonObject = z.record(z.string(), z.json());

/**
 * Parses `raw` (undefined counts as {}) and gives the options with defaults filled in, and the same as JSON.
 * Throws E_USAGE with all that does not fit.
 */
export function parseOptions<C>(
  schema: z.ZodType<C>,
  raw: unknown,
  where: string,
): { readonly config: C; readonly json: Record<string, Json> } {
  const result = schema.safeParse(raw ?? {});
  if (!result.success)
    return fail('E_USAGE', { message: `Options do not fit: ${describeIssues(result.error)}`, where });
  return { config: result.data, json: jsonObject.parse(JSON.parse(JSON.stringify(result.data))) };
}
