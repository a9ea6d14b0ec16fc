/** The base is checked beside other work: same digest, and no merged file before the check is over. */
import { existsSync, mkdtempSync, readdirSync, rmSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bertClassifier } from '../../runtime/bench/models/bert.js';
import { digestWeights } from '../../runtime/digest.js';
import { digestAside } from '../../runtime/digest-aside.js';
import { readModel, writeModel } from '../../src/onnx/index.js';

// 36 MB of weights: worth a thread.
const SHAPE = {
  layers: 1,
  hidden: 64,
  heads: 4,
  intermediate: 128,
  vocab: 140_000,
  positions: 64,
  labels: 2,
};

const folder = mkdtempSync(join(tmpdir(), 'peft-compile-aside-'));
const inside = join(folder, 'inside.onnx');
const beside = join(folder, 'beside.onnx');

beforeAll(async () => {
  await writeModel(bertClassifier(SHAPE), inside);
  await writeModel(readModel(inside), beside, { externalData: 'file' });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('a digest in a thread of its own', () => {
  it.each([
    ['inside the model', inside],
    ['in a file beside it', beside],
  ])('is that of this thread, with weights %s', async (_, path) => {
    expect(await digestAside(readModel(path))).toBe(await digestWeights(readModel(inside)));
  });

  it('falls back to the open file where its name leads to a changed one', async () => {
    const model = readModel(beside);
    utimesSync(`${beside}.data`, 1, 1);
    // The descriptor that the model holds still leads to what it read.
    expect(await digestAside(model)).toBe(await digestWeights(readModel(inside)));
  });
});

describe('what has to be known before a save is complete', () => {
  it('leaves nothing behind when it fails', async () => {
    const before = readdirSync(folder).sort();
    const out = join(folder, 'refused.onnx');
    const beforeCommit = () => Promise.reject(new Error('no'));
    await expect(writeModel(readModel(inside), out, { externalData: 'file', beforeCommit })).rejects.toThrow(
      'no',
    );
    expect(existsSync(out)).toBe(false);
    expect(readdirSync(folder).sort()).toEqual(before);
  });
});
