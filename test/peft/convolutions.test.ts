/** Folders that peft saved for convolutions: folded as `merge_and_unload` does, and written back with the same bytes. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { fold } from '../../runtime/fold/fold.js';
import { readPeft } from '../../runtime/peft/read.js';
import { writePeft } from '../../runtime/peft/write.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { fixturePath, numbersOf, readTensors } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import { relativeError } from './folders.js';

const TOLERANCE = 1e-5;
const place = (name: string) => fixturePath('peft-convolutions', name);
const expected = readTensors(place('outputs.safetensors'));
const cases = JSON.parse(readFileSync(place('cases.json'), 'utf8')) as Record<
  string,
  { readonly type: string }
>;

async function scoresOf(model: Model): Promise<number[]> {
  const image = expected.get('image')!;
  const feed = new ort.Tensor('float32', Float32Array.from(numbersOf(image)), [...image.shape]);
  return numbers((await runModel(model, { image: feed })).scores);
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-convolutions-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each(Object.entries(cases))('%s', (name, { type }) => {
  it.each(['ts', 'dynamo'])('folds into the export of %s as in peft', async (exporter) => {
    const out = join(folder, `${name}.${exporter}.onnx`);
    const { proof } = await fold({ model: place(`net.${exporter}.onnx`), adapter: place(name), out });
    expect(proof?.holds).toBe(true);
    const error = relativeError(await scoresOf(readModel(out)), Array.from(numbersOf(expected.get(name)!)));
    expect(error).toBeLessThanOrEqual(TOLERANCE);
  });

  it('is written back with the same bytes', async () => {
    const base = readModel(place('net.ts.onnx'));
    const read = await readPeft(place(name), { base });
    const out = join(folder, name);
    expect((await writePeft(read, out)).type).toBe(type);
    const [theirs, ours] = [place(name), out].map((path) =>
      readTensors(join(path, 'adapter_model.safetensors')),
    );
    expect([...ours!.keys()].sort()).toEqual(
      [...theirs!.keys()].filter((key) => !/ranknum/.test(key)).sort(),
    );
    for (const [key, { shape, bytes }] of ours!) {
      expect(shape, key).toEqual(theirs!.get(key)!.shape);
      expect(Buffer.compare(bytes, theirs!.get(key)!.bytes), key).toBe(0);
    }
    expect((await readPeft(out, { base })).record.sites).toEqual(read.record.sites);
  });
});

it('an adapter inserted here knows the windows that PEFT has axes for', () => {
  const { record } = insert(readModel(place('net.ts.onnx')), {
    method: 'lora',
    config: { rank: 2 },
    targeting: { targets: ['stem', 'point', 'line', 'head'] },
  });
  const windows = Object.fromEntries(record.sites.map(({ path, window }) => [path, window]));
  expect(windows).toEqual({ stem: [3, 3], point: [1, 1], line: [3], head: undefined });
});
