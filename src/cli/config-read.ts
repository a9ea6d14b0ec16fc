/** Config files on disk: which one is meant, and what it holds before anything is checked. */
import { existsSync, readFileSync } from 'node:fs';
import { extname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { duplicateKey } from '../../runtime/json-keys.js';
import { fail } from '../errors.js';

const STEM = 'peft-compile.config';

interface Format {
  /** Whether the file is a module, which may bring code. */
  readonly module: boolean;
  read(path: string): Promise<unknown>;
}

const MODULE: Format = { module: true, read: readModule };
const YAML: Format = { module: false, read: readYaml };

/** By extension, in the order in which they are looked for. */
const FORMATS: Readonly<Record<string, Format>> = {
  '.json': { module: false, read: readJson },
  '.yaml': YAML,
  '.yml': YAML,
  '.js': MODULE,
  '.mjs': MODULE,
  '.ts': MODULE,
  '.mts': MODULE,
};

/** The config file of a folder, if it has one. Throws E_USAGE where it has several. */
export function findConfig(folder: string): string | undefined {
  const found = Object.keys(FORMATS)
    .map((extension) => join(folder, STEM + extension))
    .filter((path) => existsSync(path));
  if (found.length > 1)
    fail('E_USAGE', {
      message: `The folder has several config files: ${found.join(', ')}`,
      remedy: 'Keep one, or name it: --config <file>',
    });
  return found[0];
}

/** Reads a config file. Throws E_USAGE when it is none, or cannot be read. */
export async function readConfig(
  path: string,
): Promise<{ readonly module: boolean; readonly content: unknown }> {
  const format =
    FORMATS[extname(path)] ??
    fail('E_USAGE', {
      message: 'A config file is JSON, YAML or a module',
      where: path,
      remedy: `Its name ends in ${Object.keys(FORMATS).join(', ')}`,
    });
  return { module: format.module, content: await format.read(path) };
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    return fail('E_USAGE', {
      message: `The config file cannot be read: ${reason(cause)}`,
      where: path,
      cause,
    });
  }
}

async function readJson(path: string): Promise<unknown> {
  const text = textOf(path);
  try {
    const content: unknown = JSON.parse(text);
    const twice = duplicateKey(text);
    if (twice === undefined) return content;
    return fail('E_USAGE', {
      message: `'${twice}' stands twice in one object`,
      where: path,
      remedy: 'Remove one',
    });
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    return malformed('JSON', path, cause);
  }
}

async function readYaml(path: string): Promise<unknown> {
  const text = textOf(path);
  const { parse, YAMLError } = await import('yaml');
  try {
    return parse(text) as unknown;
  } catch (cause) {
    if (!(cause instanceof YAMLError)) throw cause;
    return malformed('YAML', path, cause);
  }
}

function malformed(format: string, path: string, cause: Error): never {
  const [line] = cause.message.split('\n');
  return fail('E_USAGE', { message: `The config file is not ${format}: ${line}`, where: path, cause });
}

async function readModule(path: string): Promise<unknown> {
  textOf(path);
  let loaded: { default?: unknown };
  try {
    loaded = (await import(pathToFileURL(resolve(path)).href)) as typeof loaded;
  } catch (cause) {
    return fail('E_USAGE', {
      message: `The config module cannot be loaded: ${reason(cause)}`,
      where: path,
      remedy: unreadTypeScript(cause)
        ? `Node ${process.versions.node} does not read TypeScript: use Node 22.18 or newer, or write the file as .mjs, .yaml or .json`
        : 'Export defineConfig({ … }) as default; see docs/architecture.md',
      cause,
    });
  }
  return (
    loaded.default ??
    fail('E_USAGE', {
      message: 'The config module has no default export',
      where: path,
      remedy: 'Write `export default defineConfig({ … })`',
    })
  );
}

function unreadTypeScript(cause: unknown): boolean {
  return (cause as { code?: unknown }).code === 'ERR_UNKNOWN_FILE_EXTENSION';
}

function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
