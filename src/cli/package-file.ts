import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fail } from '../errors.js';

/** Absolute path of a file that ships with this package. Throws E_IO when the installation lacks it. */
export function packageFile(...parts: string[]): string {
  const path = join(packageRoot(), ...parts);
  if (!existsSync(path))
    fail('E_IO', {
      message: 'A file of the package is missing',
      where: path,
      remedy: 'Install peft-compile again',
    });
  return path;
}

/** Version of this package. */
export function packageVersion(): string {
  const manifest = JSON.parse(readFileSync(packageFile('package.json'), 'utf8')) as { version: string };
  return manifest.version;
}

/** The nearest folder above the running file that holds this package's package.json. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!isRoot(folder)) {
    const parent = dirname(folder);
    if (parent === folder) return folder;
    folder = parent;
  }
  return folder;
}

function isRoot(folder: string): boolean {
  const path = join(folder, 'package.json');
  return (
    existsSync(path) && (JSON.parse(readFileSync(path, 'utf8')) as { name?: string }).name === 'peft-compile'
  );
}
