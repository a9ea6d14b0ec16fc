/** The line that says where a model is. */
import { basename } from 'node:path';
import type { WrittenFile } from '../onnx/index.js';
import { print } from './output.js';

/** @param files as `writeModel` reports them: the model itself last */
export function printWritten(out: string, files: readonly WrittenFile[]): void {
  const beside = files.slice(0, -1);
  const named = (kept: boolean): string =>
    beside
      .filter(({ how }) => (how === 'kept') === kept)
      .map(({ path }) => basename(path))
      .join(', ');
  const [read, written] = [named(true), named(false)];
  print(
    `written to ${out}${written === '' ? '' : `, with weights in ${written}`}${read === '' ? '' : `; it reads ${read} of the base, which has to stay beside it`}`,
  );
}
