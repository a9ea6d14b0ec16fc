/** LoRAs that peft put at parameters that are no modules, folded as `merge_and_unload` does. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readPeft } from '../../runtime/peft/read.js';
import { writePeft } from '../../runtime/peft/write.js';
import { readModel } from '../../src/onnx/index.js';
import { fixturePath } from '../helpers/fixtures.js';
import { foldedError, TOLERANCE } from './expert-folds.js';

const place = (name: string) => fixturePath('peft-experts', name);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-experts-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it.each([
  ['mixtral', 'ts'],
  ['experts', 'ts'],
  ['experts', 'dynamo'],
])('%s of the exporter %s', async (name, exporter) => {
  const model = fixturePath('zoo', `${name}.${exporter}.dynamic.onnx`);
  const error = await foldedError(model, name, join(folder, `${name}.${exporter}.onnx`));
  expect(error).toBeLessThanOrEqual(TOLERANCE);
});

it('every expert has factors of its own', async () => {
  const base = readModel(fixturePath('zoo', 'mixtral.ts.dynamic.onnx'));
  const { record } = await readPeft(place('mixtral'), { base });
  const experts = record.sites.filter(({ path }) => path.includes('.experts.'));
  expect(experts.map(({ path }) => path.split('.experts.')[1])).toEqual(
    ['gate_up_proj', 'down_proj'].flatMap((name) => [0, 1, 2].map((expert) => `${name}.${expert}`)),
  );
});

it('a parameter that the model lacks is an error that names it', async () => {
  const base = readModel(fixturePath('zoo', 'experts.ts.dynamic.onnx'));
  await expect(readPeft(place('mixtral'), { base })).rejects.toMatchObject({ code: 'E_NO_MATCH' });
});

it('is not written as modules that PEFT does not have', async () => {
  const base = readModel(fixturePath('zoo', 'mixtral.ts.dynamic.onnx'));
  const adapter = await readPeft(place('mixtral'), { base });
  await expect(writePeft(adapter, join(folder, 'written'))).rejects.toMatchObject({
    code: 'E_UNSUPPORTED',
    message: expect.stringContaining('experts in one tensor'),
  });
});
