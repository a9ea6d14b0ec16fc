/** Exports that nobody here made: adapted, folded, and trained where their operators have gradients. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attachAdapter, insert } from '../../passes/insert/insert.js';
import { emitStep } from '../../passes/targets/step.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { verify } from '../../runtime/verify.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { goldenPath } from '../helpers/fixtures.js';

const LORA = {
  method: 'lora',
  config: { rank: 2, alpha: 3 },
  targeting: { targets: 'all-linear' as const },
};

/** The decoder has eight positions. */
const SHAPES = [
  { batch_size: 2, seq_len: 3, batch: 2, sequence: 5, max_seq_len_in_batch: 4 },
  { batch_size: 1, seq_len: 6, batch: 1, sequence: 9, max_seq_len_in_batch: 7 },
];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'golden-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** On which loss each is trained. */
const MODELS = [
  ['gpt2_past', { loss: 'mse', lossConfig: { output: 'last_state' } }],
  ['distilbert_classifier_optimum', { loss: 'classification' }],
  ['bert_toy_ort_optimized', { loss: 'classification', lossConfig: { output: 'seq_relationship_score' } }],
  ['whisper_hf_decoder_attention', { loss: 'mse', lossConfig: { output: 'output_hidden_states' } }],
] as const;

describe.each(MODELS)('%s', (name, options) => {
  const path = goldenPath(`models/${name}.onnx`);

  test.skipIf(path === undefined)('folds to its own graph', async () => {
    const model = readModel(path!);
    const { record } = insert(model, LORA);
    const tensors = randomParameters(record, model);
    const adapter = join(folder, `${name}.safetensors`);
    await writeAdapter(adapter, record, tensors);
    const unfolded = readModel(path!);
    attachAdapter(unfolded, record, tensors);
    expect((await verify(path!, unfolded, { sizes: SHAPES })).pass).toBe(false);
    const out = join(folder, `${name}.onnx`);
    const report = await fold({ model: path!, adapter, out, verify: { sizes: SHAPES } });
    expect(report.proof?.holds).toBe(true);
    expect(report.verification?.worst.relative).toBeLessThanOrEqual(report.verification?.tolerance ?? 0);
  });

  test.skipIf(path === undefined)('has a training graph', () => {
    const model = readModel(path!);
    const { record } = insert(model, LORA);
    const { manifest } = emitStep(model, options);
    // Factors of modules that the loss does not read (another head) are left as they are.
    expect(manifest.params.length + manifest.untrained.length).toBe(2 * record.sites.length);
    expect(manifest.untrained.length).toBeLessThanOrEqual(2);
    expect(manifest.batch.filter((input) => input.name.startsWith('past_'))).toEqual([]);
  });
});
