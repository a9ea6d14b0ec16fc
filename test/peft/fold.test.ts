/** Every folder that peft can merge, folded into exports of its architecture, against `merge_and_unload`. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fold } from '../../runtime/fold/fold.js';
import { readModel } from '../../src/onnx/index.js';
import { expectedLogits, firstLogits, foldExports, peftCases, peftFolder, relativeError } from './folders.js';

const TOLERANCE = 1e-5;
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-fold-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each(peftCases(({ folds }) => folds))('$name', (one) => {
  it.each(foldExports(one))('folds into $name as in peft', async (fixture) => {
    const out = join(folder, `${one.name}-${fixture.name}.onnx`);
    const { proof } = await fold({ model: fixture.path, adapter: peftFolder(one.name), out });
    expect(proof?.holds).toBe(true);
    // Where peft merges into a weight that others share, it changes them too, unlike the adapted model.
    const error = relativeError(await firstLogits(readModel(out), fixture), expectedLogits(one, 'adapted'));
    expect(error).toBeLessThanOrEqual(TOLERANCE);
  });
});
