/**
 * External tensor data: the `external_data` entries of a tensor resolved to a range of a file in the model's folder.
 * Paths that are absolute, climb out with `..` or leave the folder through a symbolic link are refused, as ONNX Runtime
 * refuses them.
 */
import { realpathSync, statSync } from 'node:fs';
import { dirname, isAbsolute, join, relative, sep, win32 } from 'node:path';
import { fail } from '../errors.js';
import { ExternalData } from './payload.js';
import { errorCode, FileSource, reason } from './source.js';

/** Opens the external files of one model, each once. */
export class ExternalFiles {
  readonly #sources = new Map<string, FileSource>();
  readonly folder: string;

  constructor(readonly modelPath: string) {
    this.folder = dirname(modelPath);
  }

  /** @param expected bytes that dtype and dims call for, when known. */
  resolve(entries: ReadonlyMap<string, string>, expected: number | undefined, tensor: string): ExternalData {
    const where = `${this.modelPath}, tensor '${tensor}'`;
    const location = entries.get('location') ?? '';
    const source = this.#open(location, where);
    const offset = amount(entries, 'offset', where) ?? 0;
    const length = amount(entries, 'length', where) ?? expected ?? source.length - offset;
    if (expected !== undefined && length !== expected)
      fail('E_EXTERNAL_DATA', {
        message: `The external data has ${length} bytes where type and shape call for ${expected}`,
        where,
        remedy: 'Export the model again; its tensor table does not fit its shapes.',
      });
    if (offset + length > source.length)
      fail('E_EXTERNAL_DATA', {
        message: `The external data ends at byte ${offset + length} of '${location}', which has only ${source.length} bytes`,
        where,
        remedy: 'The data file is truncated or belongs to another model; copy it again.',
      });
    return new ExternalData(source, offset, length, location, this.folder);
  }

  #open(location: string, where: string): FileSource {
    const known = this.#sources.get(location);
    if (known !== undefined) return known;
    checkLocation(location, where);
    const path = join(this.folder, location);
    try {
      const real = realpathSync(path);
      const homes = [realpathSync(this.folder), dirname(realpathSync(this.modelPath))];
      if (!homes.some((home) => contains(home, real)))
        fail('E_EXTERNAL_DATA', {
          message: `The external data file '${location}' is a link out of the model's folder`,
          where,
          remedy: 'Copy or hard-link the data file into the folder of the model.',
        });
      if (!statSync(real).isFile())
        fail('E_EXTERNAL_DATA', { message: `The external data '${location}' is not a file`, where });
    } catch (cause) {
      if (errorCode(cause) === undefined || !isSystemError(cause)) throw cause;
      fail('E_EXTERNAL_DATA', {
        message: `Cannot open the external data file '${location}': ${reason(cause)}`,
        where,
        remedy: `Put the file at ${path}; a model with external data is a folder, not a single file.`,
        cause,
      });
    }
    const source = new FileSource(path);
    this.#sources.set(location, source);
    return source;
  }
}

function isSystemError(cause: unknown): boolean {
  return cause instanceof Error && 'syscall' in cause;
}

/** Refuses locations that are not plain relative paths downwards. */
export function checkLocation(location: string, where: string): void {
  const refuse = (why: string): never =>
    fail('E_EXTERNAL_DATA', {
      message: `The external data location '${location}' ${why}`,
      where,
      remedy: "Only files in the model's own folder are read.",
    });
  if (location === '') refuse('is empty');
  if (location.includes('\0')) refuse('holds a zero byte');
  if (isAbsolute(location) || win32.isAbsolute(location)) refuse('is absolute');
  if (location.split(/[/\\]/).includes('..')) refuse("contains '..'");
}

export function contains(folder: string, path: string): boolean {
  const rest = relative(folder, path);
  return rest !== '' && rest !== '..' && !rest.startsWith(`..${sep}`) && !isAbsolute(rest);
}

function amount(entries: ReadonlyMap<string, string>, key: string, where: string): number | undefined {
  const text = entries.get(key);
  if (text === undefined || text === '') return undefined;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value))
    fail('E_EXTERNAL_DATA', {
      message: `The ${key} '${text}' of the external data is not a size in bytes`,
      where,
    });
  return value;
}
