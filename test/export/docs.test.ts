/** The commands and the JavaScript of docs/serving.md, as they stand there. */
import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import * as library from 'peft-compile';
import { afterAll, expect, it } from 'vitest';
import { cli, temporaryFolder } from '../cli/support.js';
import { repositoryRoot } from '../helpers/fixtures.js';
import { numbers } from '../helpers/run.js';

const folder = temporaryFolder();
afterAll(() => folder.remove());

const page = readFileSync(join(repositoryRoot, 'docs', 'serving.md'), 'utf8');
const blocks = (language: string) =>
  [...page.matchAll(new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``, 'g'))].map(([, code = '']) => code);

/** Files of the page in the temporary folder, fixtures where they are. */
const placed = (word: string) =>
  word.startsWith('fixtures/')
    ? join(repositoryRoot, word)
    : /^[\w-]+\.onnx(_adapter)?$/.test(word)
      ? folder.path(word)
      : word.replace(/=(fixtures\/.*)$/, (_, path: string) => `=${join(repositoryRoot, path)}`);

const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor as new (
  ...parts: string[]
) => (...given: unknown[]) => Promise<Record<string, ort.Tensor | Record<string, ort.Tensor>>>;

/** Runs a module; what it declares at its end is returned. */
function execute(code: string, results: readonly string[]) {
  const body = code
    .replace(/import ort from 'onnxruntime-node';/, '')
    .replace(/import (\{[^}]*\}) from 'peft-compile';/, 'const $1 = library;')
    .replace(/'([\w-]+\.onnx(?:_adapter)?)'/g, (_, name: string) => JSON.stringify(folder.path(name)));
  return new AsyncFunction('ort', 'library', `${body}\nreturn { ${results.join(', ')} };`)(ort, library);
}

it('does what it says', { timeout: 120_000 }, async () => {
  for (const line of blocks('sh').join('').trim().split('\n')) {
    const [command = '', ...words] = line.split(/\s+/).map(placed);
    if (command === 'cp') copyFileSync(words[0] ?? '', words[1] ?? '');
    else expect(await cli(...words), line).toMatchObject({ status: 0 });
  }
  const [switched = '', mixed = ''] = blocks('js');
  const { french, base } = (await execute(switched, ['french', 'base'])) as Record<
    string,
    Record<string, ort.Tensor>
  >;
  const { logits } = (await execute(mixed, ['logits'])) as Record<string, ort.Tensor>;
  const all = numbers(logits);
  const rows = [0, 1, 2].map((row) => all.slice((row * all.length) / 3, ((row + 1) * all.length) / 3));
  const off = (a: readonly number[], b: readonly number[]) =>
    Math.max(...a.map((value, i) => Math.abs(value - b[i]!))) / Math.max(...a.map(Math.abs));
  expect(off(numbers(base?.logits), rows[0]!)).toBeLessThan(1e-5);
  expect(off(numbers(french?.logits), rows[1]!)).toBeLessThan(1e-5);
  expect(off(rows[0]!, rows[1]!)).toBeGreaterThan(1e-2);
  expect(off(rows[1]!, rows[2]!)).toBeGreaterThan(1e-2);
});
