/** Settings of methods and presets: a schema, checked in one place. */
import { z } from 'zod';
import { fail } from '../../../src/errors.js';
import { didYouMean } from '../../../src/nearest.js';
import { describeIssues } from '../../../src/zod-issues.js';

/** What has settings: a method or a preset. */
export interface Configurable {
  readonly id: string;
  readonly config: z.ZodType<Record<string, unknown>>;
}

/** Names of the settings. */
export function settingsOf({ config }: Configurable): string[] {
  return Object.keys(z.toJSONSchema(config, { io: 'input', unrepresentable: 'any' }).properties ?? {});
}

/** Checks a configuration against the schema and fills in defaults. Throws E_USAGE. */
export function configure(
  configurable: Configurable,
  config: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const { id } = configurable;
  const result = configurable.config.safeParse(config);
  if (result.success) return result.data;
  const known = settingsOf(configurable);
  const unknown = result.error.issues.flatMap((issue) =>
    issue.code === 'unrecognized_keys' && issue.path.length === 0 ? issue.keys : [],
  );
  const hints = known.length === 0 ? [] : unknown.map((key) => didYouMean(key, known));
  return fail('E_USAGE', {
    message: `Configuration of ${id} is invalid: ${describeIssues(result.error, known)}`,
    remedy: [...hints, `See peft-compile methods ${id}`].join(' '),
  });
}
