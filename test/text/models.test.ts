import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cloneModel } from '../../src/clone.js';
import { readModel } from '../../src/onnx/index.js';
import { sortTopologically } from '../../src/order.js';
import { parseModel, printModel } from '../../src/text/index.js';

const folder = join(import.meta.dirname, '../../fixtures/models');
const files = readdirSync(folder)
  .filter((name) => name.endsWith('.onnx'))
  .map((name) => join(folder, name));

describe('text of exported models', () => {
  it.each(files.map((file) => [basename(file), file]))('%s parses back to the same text', (_, file) => {
    const model = readModel(file);
    const options = { annotations: true };
    const text = printModel(model, options);
    expect(printModel(parseModel(text), options)).toBe(text);
    const copy = cloneModel(model).model;
    expect(printModel(copy, options)).toBe(text);
    expect(sortTopologically(copy.graph)).toBe(false);
  });

  // The official parser is Python only: `PEFT_COMPILE_PYTHON=python3 npx vitest run test/text` runs this check too.
  const python = process.env.PEFT_COMPILE_PYTHON;
  it.skipIf(python === undefined)('onnx.parser reads every text as the model it came from', () => {
    const input = files
      .map((path) =>
        JSON.stringify({ path, text: printModel(readModel(path), { types: true, annotations: true }) }),
      )
      .join('\n');
    const run = spawnSync(python ?? '', [join(import.meta.dirname, 'onnx_parser_check.py')], {
      input,
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    });
    expect(run.stderr).toBe('');
    const results = run.stdout
      .trim()
      .split('\n')
      .map((line): unknown => JSON.parse(line));
    expect(results).toEqual(files.map((path) => ({ path, same: true })));
  });
});
