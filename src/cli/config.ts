/** A module of the user's own: methods and passes beside those that ship. */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Method } from '../../passes/methods/method.js';
import type { Pass } from '../../passes/pass.js';
import { fail } from '../errors.js';

export interface UserConfig {
  readonly methods: readonly Method[];
  readonly passes: readonly Pass[];
}

/** Declares a config file's content; identity with type checking. */
export function defineConfig(config: Partial<UserConfig>): Partial<UserConfig> {
  return config;
}

/**
 * Imports a config module (`.js`, `.mjs`; `.ts` where Node itself reads TypeScript) whose default export is
 * `{ methods?, passes? }`. Throws E_USAGE when it cannot be loaded.
 */
export async function loadUserConfig(path: string | undefined): Promise<UserConfig> {
  if (path === undefined) return { methods: [], passes: [] };
  let loaded: { default?: Partial<UserConfig> };
  try {
    loaded = (await import(pathToFileURL(resolve(path)).href)) as typeof loaded;
  } catch (cause) {
    return fail('E_USAGE', {
      message: `The config module cannot be loaded: ${cause instanceof Error ? cause.message : String(cause)}`,
      where: path,
      remedy: 'Export { methods, passes } as default; see docs/architecture.md',
      cause,
    });
  }
  if (typeof loaded.default !== 'object')
    return fail('E_USAGE', {
      message: 'The config module has no default export',
      where: path,
      remedy: 'Write `export default defineConfig({ methods, passes })`',
    });
  const { methods = [], passes = [] } = loaded.default;
  return { methods, passes };
}
