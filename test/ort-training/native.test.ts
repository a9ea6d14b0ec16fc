/**
 * What ONNX Runtime's training API did with emitted artifacts in Python (`fixtures/generate/ort_training.py`): its
 * losses are those of the step target, its checkpoint is read back and folds to the model that the API exported.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import { afterAll, describe, expect, it } from 'vitest';
import { readAdapterRecord, writeAdapterRecord } from '../../passes/adapter-record.js';
import { insert } from '../../passes/insert/insert.js';
import type { OrtTrainingOptions } from '../../passes/targets/ort-training/options.js';
import { readAdapter } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { adapterOfOrtCheckpoint, writeOrtAdapter } from '../../runtime/ort-training/adapter.js';
import { produceOrtTraining } from '../../runtime/ort-training/produce.js';
import { readCheckpoint } from '../../runtime/ort-training/read-checkpoint.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { cli } from '../cli/support.js';
import { fixturePath, modelFixture } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import type { Batch } from '../targets/driver.js';
import { byStepTarget } from './agreement.js';

interface Recorded {
  readonly model: string;
  readonly steps: number;
  readonly losses: readonly number[];
  readonly held: number;
  /** The first eight scores of the last token of every row of batch 0. */
  readonly logits: readonly number[];
}

const recorded = JSON.parse(readFileSync(fixturePath('ort-training', 'gpt2.json'), 'utf8')) as Recorded;
const checkpoint = fixturePath('ort-training', 'gpt2.checkpoint');
const folder = mkdtempSync(join(tmpdir(), 'peft-compile-ort-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function adapted(targets = ['c_attn'], settings: Record<string, unknown> = {}): Model {
  const model = readModel(modelFixture(recorded.model).path);
  const config = { rank: 2, alpha: 3, dropout: 0.2, ...settings };
  insert(model, { method: 'lora', config, targeting: { targets }, seed: 3 });
  return model;
}

function batch(step: number): Batch {
  const ids = Array.from({ length: 48 }, (_, i) => BigInt(((13 * i + 7 * step * i + 5 * step) % 58) + 2));
  const tensor = (values: readonly bigint[]) => new ort.Tensor('int64', BigInt64Array.from(values), [4, 12]);
  return { input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1n)), labels: tensor(ids) };
}

const OPTIONS: OrtTrainingOptions = {
  loss: 'causal-lm',
  clip: 0.5,
  schedule: { id: 'cosine', learningRate: 0.02, warmupSteps: 2, totalSteps: 10 },
};

describe('a checkpoint that ONNX Runtime Training saved', () => {
  it('has the losses and parameters of the step target', async () => {
    const batches = Array.from({ length: recorded.steps }, (_, t) => [batch(t)]);
    const { losses, held, params } = await byStepTarget(adapted(), OPTIONS, batches);
    for (const [i, loss] of [...losses, held].entries())
      expect(Math.abs([...recorded.losses, recorded.held][i]! / loss - 1)).toBeLessThan(1e-5);
    const { trainable } = readCheckpoint(checkpoint);
    expect([...trainable.keys()].sort()).toEqual([...params.keys()].sort());
    for (const [key, tensor] of trainable) {
      const found = numbersOf(await loadTensor(tensor));
      const wanted = params.get(key)!;
      const scale = Math.max(...wanted.map(Math.abs));
      expect(Math.max(...wanted.map((value, i) => Math.abs(value - found[i]!))) / scale).toBeLessThan(1e-5);
    }
  });

  it('holds the state of its optimizer, the seed of the next masks and the record', () => {
    const { optimizer, frozen, properties, nominal } = readCheckpoint(checkpoint);
    expect(nominal).toBe(false);
    expect(optimizer?.step).toBe(recorded.steps);
    expect([...(optimizer?.moments.values() ?? [])].map((moments) => moments.length)).toEqual([2, 2, 2, 2]);
    const seed = frozen.get('peft_compile.dropout_seed');
    expect(new DataView(seed!.data.read(0, 4).slice().buffer).getFloat32(0, true)).toBe(recorded.steps);
    expect(JSON.parse(String(properties.get('peft_compile.adapter')))).toMatchObject(
      readAdapterRecord(adapted()),
    );
  });

  it('folds to the model that the API exported', async () => {
    const adapter = join(folder, 'adapter.safetensors');
    await writeOrtAdapter(checkpoint, adapter);
    const out = join(folder, 'merged.onnx');
    await fold({ model: modelFixture(recorded.model).path, adapter, out });
    const { input_ids, attention_mask } = batch(0) as Record<string, ort.Tensor>;
    const { logits } = await runModel(readModel(out), {
      input_ids: input_ids!,
      attention_mask: attention_mask!,
    });
    const scores = numbers(logits);
    const found = Array.from({ length: 32 }, (_, i) => scores[(Math.floor(i / 8) * 12 + 11) * 64 + (i % 8)]!);
    const scale = Math.max(...recorded.logits.map(Math.abs));
    for (const [i, value] of found.entries())
      expect(Math.abs(value - recorded.logits[i]!) / scale).toBeLessThan(1e-5);
  });

  it('is refused for another adapter, and for another base', async () => {
    const { properties: _gone, ...bare } = readCheckpoint(checkpoint);
    const nameless = { ...bare, properties: new Map<string, string>() };
    await expect(adapterOfOrtCheckpoint(nameless)).rejects.toMatchObject({ code: 'E_INVALID_DATA' });
    expect((await adapterOfOrtCheckpoint(nameless, adapted())).tensors.size).toBe(4);
    await expect(adapterOfOrtCheckpoint(nameless, adapted(['c_fc']))).rejects.toMatchObject({
      code: 'E_INVALID_DATA',
      message: expect.stringContaining('mlp.c_fc') as unknown,
    });
    const elsewhere = adapted();
    writeAdapterRecord(elsewhere, { ...readAdapterRecord(elsewhere), base: 'sha256:0' });
    await expect(adapterOfOrtCheckpoint(readCheckpoint(checkpoint), elsewhere)).rejects.toMatchObject({
      message: expect.stringContaining('other base weights') as unknown,
    });
    const whole = readCheckpoint(checkpoint);
    expect((await adapterOfOrtCheckpoint(whole, adapted())).tensors.size).toBe(4);
    const others: [Model, RegExp][] = [
      [adapted(['c_fc']), /another adapter .*c_attn\.lora_A' is \[\d+, 2\], and the model has none/],
      [adapted(['c_attn'], { rank: 3 }), /another adapter .* is \[\d+, 2\], the model's is \[\d+, 3\]/],
      [adapted(['c_attn'], { alpha: 9 }), /another adapter .*its alpha at .* is 3, the model's is 9/],
      [adapted(['c_attn', 'c_fc']), /another adapter .*it has no '/],
    ];
    for (const [model, message] of others)
      await expect(adapterOfOrtCheckpoint(whole, model)).rejects.toMatchObject({
        code: 'E_INVALID_DATA',
        message: expect.stringMatching(message) as unknown,
        remedy: expect.stringContaining('trained with') as unknown,
      });
  });

  it('is no adapter file and no run of our trainer, which both say', async () => {
    await expect(readAdapter(checkpoint)).rejects.toMatchObject({
      code: 'E_INVALID_DATA',
      remedy: expect.stringContaining('peft-compile adapter') as unknown,
    });
    await expect(produceOrtTraining(adapted(), { ...OPTIONS, from: checkpoint })).rejects.toMatchObject({
      code: 'E_INVALID_DATA',
      where: checkpoint,
      remedy: expect.stringContaining('goes on by itself') as unknown,
    });
  });
});

describe('the command line', () => {
  it('emits the folder, and makes an adapter of a checkpoint', async () => {
    const at = (name: string) => join(folder, name);
    const insertion = [
      '--method',
      'lora',
      '--set',
      'rank=2',
      '--targets',
      'c_attn',
      '-o',
      at('adapted.onnx'),
    ];
    expect(await cli('insert', modelFixture(recorded.model).path, ...insertion)).toMatchObject({ status: 0 });
    const target = ['--target', 'ort-training', '--loss', 'causal-lm', '--nominal', '-o', at('device')];
    const emitted = await cli('emit', at('adapted.onnx'), ...target, '--json');
    const report = JSON.parse(emitted.stdout) as Record<string, unknown>;
    expect(report).toMatchObject({
      target: 'ort-training',
      inputs: [{ name: 'input_ids' }, { name: 'attention_mask' }, { name: 'labels', role: 'label' }],
      outputs: ['loss'],
      evalOutputs: [{ name: 'loss' }, { name: 'loss_weight' }, { name: 'correct' }, { name: 'logits' }],
    });
    expect((report.files as string[]).map((file) => file.slice(at('device/').length))).toEqual([
      'training_model.onnx',
      'eval_model.onnx',
      'optimizer_model.onnx',
      'nominal_checkpoint',
      'checkpoint',
    ]);
    const adapter = ['--checkpoint', at('device/checkpoint'), '-o', at('a.safetensors')];
    expect(await cli('adapter', at('device'), ...adapter)).toMatchObject({ status: 0 });
    const nominal = ['--checkpoint', at('device/nominal_checkpoint'), '-o', at('b.safetensors')];
    const refused = await cli('adapter', at('device'), ...nominal);
    expect(refused.status).toBe(3);
    expect(refused.stderr).toContain('holds names and no values');
    const models = ['--checkpoint', at('device/training_model.onnx'), '-o', at('b.safetensors')];
    const foreign = await cli('adapter', at('device'), ...models);
    expect(foreign.status).toBe(3);
    expect(foreign.stderr).toContain('no checkpoint of ONNX Runtime Training');
    const linear = await cli('emit', at('adapted.onnx'), ...target, '--force', '--schedule', 'linear');
    expect(linear.status).toBe(2);
    expect(linear.stderr).toContain('--steps');
  });
});
