/**
 * One model of every kind of file takes the course of the step target in ONNX Runtime's training API; the slow tests take
 * all of them (`test/slow/ort-training.test.ts`).
 */
import { describe, expect, it } from 'vitest';
import { fixturePath } from '../helpers/fixtures.js';
import { difference } from './agreement.js';
import { courses } from './fixture-course.js';
import { installed } from './training-runtime.js';

const CAUSAL = { id: 'causal-lm', config: {} };
const CLASSES = { id: 'classification', config: {} };

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
    const { theirs, ours } = await courses({ path: fixturePath(folder, `${name}.onnx`), loss }, 5);
    expect(theirs.losses.at(-1)).toBeLessThan(0.9 * theirs.losses[0]!);
    const { losses, params } = difference(theirs, ours);
    expect(losses).toBeLessThan(1e-5);
    expect(params).toBeLessThan(2e-5);
  });
});
