/** Files of the repository that are not compiled: peers and fixtures. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Absolute path of a file below the nearest folder above this file that holds a package.json. */
export function repositoryFile(...parts: string[]): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('no package.json above the benchmark');
    folder = parent;
  }
  return join(folder, ...parts);
}

/** Absolute path of a compiled module, given relative to the build folder: `runtime/bench/child.js`. */
export function builtFile(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}
