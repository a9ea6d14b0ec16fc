/** Prompts and prefixes of folders: inserted, since they do not fold, and compared with peft. */
import { expect, it } from 'vitest';
import { attachAdapter } from '../../passes/insert/insert.js';
import { modelTensors } from '../../runtime/adapter-file.js';
import { readPeft } from '../../runtime/peft/read.js';
import { readModel } from '../../src/onnx/index.js';
import { modelFixture } from '../helpers/fixtures.js';
import { expectedLogits, firstLogits, peftCases, peftFolder, relativeError } from './folders.js';

const cases = peftCases(({ folds }) => !folds).flatMap((one) =>
  ['ts', 'dynamo'].map((exporter) => ({ ...one, exporter })),
);

it.each(cases)('$name computes in $architecture.$exporter.dynamic what it computes in peft', async (one) => {
  const fixture = modelFixture(`${one.architecture}.${one.exporter}.dynamic`);
  const model = readModel(fixture.path);
  const adapter = await readPeft(peftFolder(one.name), { base: model });
  attachAdapter(model, adapter.record, await modelTensors(adapter));
  expect(relativeError(await firstLogits(model, fixture), expectedLogits(one))).toBeLessThanOrEqual(1e-5);
});
