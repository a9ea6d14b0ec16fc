/** Checks what a config file holds. Every complaint says the file, the path inside it, and what was probably meant. */
import type { z } from 'zod';
import type { Method } from '../../passes/methods/contract/method.js';
import { configurableOf, type Own } from '../../passes/presets/registry.js';
import { fail } from '../errors.js';
import { didYouMean } from '../nearest.js';
import { dataFileSchema, jsonOf, moduleSchema } from './config-schema.js';

/** The content of a file, checked with the settings of the methods that it names. Throws E_USAGE and E_NO_MATCH. */
export function checkConfig(content: unknown, file: string, module: boolean): z.output<typeof moduleSchema> {
  const schema = module ? moduleSchema : dataFileSchema;
  const result = schema.safeParse(content ?? {});
  if (!result.success) return complain(result.error, schema, file, [], module);
  const config: z.output<typeof moduleSchema> = result.data;
  for (const [index, { method, config: given = {} }] of (config.adapters ?? []).entries())
    checkSettings(method, given, config, file, ['adapters', index]);
  return config;
}

function checkSettings(
  method: Method | string,
  given: Readonly<Record<string, unknown>>,
  own: Own,
  file: string,
  path: readonly PropertyKey[],
): void {
  const configurable = configurableOf(method, own, place(file, [...path, 'method']));
  const result = configurable.config.safeParse(given);
  if (!result.success)
    complain(result.error, configurable.config, file, [...path, 'config'], true, configurable.id);
}

function complain(
  error: z.core.$ZodError,
  schema: z.ZodType,
  file: string,
  prefix: readonly PropertyKey[],
  module: boolean,
  owner?: string,
): never {
  const [issue] = error.issues;
  if (issue === undefined) return fail('E_USAGE', { message: 'The config does not fit', where: file });
  const more = error.issues.length > 1 ? ` (and ${error.issues.length - 1} more)` : '';
  if (issue.code === 'unrecognized_keys') {
    const [key = ''] = issue.keys;
    const code = ['methods', 'presets', 'passes'].includes(key) && !module && issue.path.length === 0;
    return fail('E_USAGE', {
      message: `${owner === undefined ? 'Unknown entry' : `${owner} has no setting`} '${key}'${more}`,
      where: place(file, [...prefix, ...issue.path]),
      remedy: code
        ? 'Code needs a module: peft-compile.config.mjs'
        : didYouMean(key, keysAt(jsonOf(schema), issue.path)),
    });
  }
  const { message } = issue;
  return fail('E_USAGE', {
    message: `The config does not fit: ${message.charAt(0).toLowerCase()}${message.slice(1)}${more}`,
    where: place(file, [...prefix, ...issue.path]),
    remedy: owner === undefined ? 'See docs/config.schema.json' : `See peft-compile methods ${owner}`,
  });
}

/** `peft-compile.config.yaml: adapters[0].config`. */
function place(file: string, path: readonly PropertyKey[]): string {
  const inside = path
    .map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`))
    .join('')
    .replace(/^\./, '');
  return inside === '' ? file : `${file}: ${inside}`;
}

interface SchemaNode {
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly items?: SchemaNode;
}

/** Keys that an object inside a file may have. */
function keysAt(schema: object, path: readonly PropertyKey[]): string[] {
  let node: SchemaNode | undefined = schema;
  for (const key of path) node = typeof key === 'number' ? node?.items : node?.properties?.[String(key)];
  return Object.keys(node?.properties ?? {});
}
