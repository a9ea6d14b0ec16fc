/** Folders of peft read for an export and written back: the same tensors, bit by bit, under a configuration that means the same. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readPeft } from '../../runtime/peft/read.js';
import { writePeft } from '../../runtime/peft/write.js';
import { readModel } from '../../src/onnx/index.js';
import { modelFixture, readTensors } from '../helpers/fixtures.js';
import { peftCases, peftFolder } from './folders.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-round-trip-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What peft saves twice, or for training alone. */
const LEFT_OUT = /\.original_module\.|\.modules_to_save\.|\.randlora_[AB]$|monteclora|velora_embed/;

/** Types that hold what another one holds, and are written as that. */
const WRITTEN_AS: Readonly<Record<string, string>> = {
  P_TUNING: 'PROMPT_TUNING',
  CPT: 'PROMPT_TUNING',
  CARTRIDGE: 'PREFIX_TUNING',
};

/** Pruned ranks of AdaLoRA are written as zeros, prompts of tasks as the product that they are. */
const exact = peftCases((one) => !['adalora-pruned', 'multitask'].includes(one.case));

it.each(exact)('$name', async ({ name, architecture, type }) => {
  const base = readModel(modelFixture(`${architecture}.dynamo.dynamic`).path);
  const read = await readPeft(peftFolder(name), { base });
  const out = join(folder, name);
  const report = await writePeft(read, out, { task: 'CAUSAL_LM' });
  expect(report.type).toBe(WRITTEN_AS[type] ?? type);
  const theirs = readTensors(join(peftFolder(name), 'adapter_model.safetensors'));
  const ours = readTensors(join(out, 'adapter_model.safetensors'));
  for (const [key, tensor] of theirs) {
    if (LEFT_OUT.test(key) && !ours.has(key)) continue;
    const same = ours.get(key);
    expect(same?.shape, key).toEqual(tensor.shape);
    if (tensor.dtype.startsWith('F')) expect(Buffer.compare(same!.bytes, tensor.bytes), key).toBe(0);
  }
  expect([...ours.keys()].filter((key) => !theirs.has(key))).toEqual([]);

  const again = await readPeft(out, { base });
  expect(again.record.sites).toEqual(read.record.sites);
  expect([...again.tensors.keys()]).toEqual([...read.tensors.keys()]);
});

it('ranks that AdaLoRA pruned come back as zeros', async () => {
  const base = readModel(modelFixture('llama.dynamo.dynamic').path);
  const out = join(folder, 'pruned');
  await writePeft(await readPeft(peftFolder('llama-adalora-pruned'), { base }), out);
  const theirs = readTensors(join(peftFolder('llama-adalora-pruned'), 'adapter_model.safetensors'));
  const ours = readTensors(join(out, 'adapter_model.safetensors'));
  for (const [key, { shape, bytes }] of theirs) {
    const [rows = 0, columns = 0] = shape;
    const [tall = 0, wide = 0] = ours.get(key)!.shape;
    const [all, kept] = [new Float32Array(ours.get(key)!.bytes.buffer), new Float32Array(bytes.buffer)];
    const expected = Array.from({ length: tall * wide }, (_, i) => {
      const [row, column] = [Math.floor(i / wide), i % wide];
      return row < rows && column < columns ? kept[row * columns + column] : 0;
    });
    expect([...all], key).toEqual(expected);
  }
});
