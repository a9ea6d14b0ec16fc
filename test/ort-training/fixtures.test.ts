/**
 * One model of every kind of file takes the course of the step target in ONNX Runtime's training API; the slow tests take
 * all of them (`test/slow/ort-training.test.ts`).
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { emitOrtTraining } from '../../passes/targets/ort-training/emit.js';
import { walkNodes } from '../../src/graph.js';
import { readModel, writeModel } from '../../src/onnx/index.js';
import { fixturePath } from '../helpers/fixtures.js';
import { difference } from './agreement.js';
import { courses, type Trainee } from './fixture-course.js';
import { installed } from './training-runtime.js';

const CAUSAL = { id: 'causal-lm', config: {} };
const CLASSES = { id: 'classification', config: {} };

const folder = mkdtempSync(join(tmpdir(), 'peft-compile-ort-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function agree(path: string, loss: NonNullable<Trainee['loss']>): Promise<void> {
  const { theirs, ours } = await courses({ path, loss }, 5);
  expect(theirs.losses.at(-1)).toBeLessThan(0.9 * theirs.losses[0]!);
  const { losses, params } = difference(theirs, ours);
  expect(losses).toBeLessThan(1e-5);
  expect(params).toBeLessThan(2e-5);
}

describe.skipIf(!installed)('the training API trains', () => {
  it.each([
    ['what ORT GenAI built, in 4 bits', 'fused', 'llama.genai.int4', CAUSAL],
    ['a decoder with a past', 'decoders', 'llama.ts', CAUSAL],
    ['a merged decoder', 'decoders', 'gpt2.merged', CAUSAL],
    ["what ONNX Runtime's optimizer fused", 'fused', 'distilbert.optimizer.attention', CLASSES],
    ['a table in blocks, for which it has no operator', 'quantised', 'bert-nbits4', CLASSES],
    ['bfloat16, computed in float32', 'zoo', 'opt.ts.bf16', CAUSAL],
    ['products in 8 bits, for which it has no kernel', 'quantised', 'bert-nbits8', CLASSES],
  ])('%s', async (_, folder, name, loss) => {
    await agree(fixturePath(folder, `${name}.onnx`), loss);
  });

  it("what ORT GenAI's builder makes for opset 21, whose fused attention the eval model keeps", async () => {
    const model = readModel(fixturePath('fused', 'llama.genai.fp32.onnx'));
    model.opsets.set('', 21);
    const path = join(folder, 'opset21.onnx');
    await writeModel(model, path);
    await agree(path, CAUSAL);
    insert(model, { method: 'lora' });
    const { evaluation } = emitOrtTraining(model, { loss: 'causal-lm' });
    const attentions = [...walkNodes(evaluation.graph)].filter(({ op }) => op === 'GroupQueryAttention');
    expect(attentions.map(({ inputs }) => inputs.length)).toEqual([9, 9]);
  });
});
