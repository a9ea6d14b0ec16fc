/** Where the scripts of worker threads are. */
import { fileURLToPath } from 'node:url';

/** Workers are plain JavaScript: next to this file when built, in `dist/` when this file runs as TypeScript. */
export function workerFile(name: string): string {
  const folder = import.meta.url.endsWith('.ts') ? '../dist/runtime' : '.';
  return fileURLToPath(new URL(`${folder}/${name}.js`, import.meta.url));
}
