/** ONNX Runtime's training API and the step target train alike: the same losses and parameters from the same batches. */
import { describe, expect, it } from 'vitest';
import { emitOrtTraining } from '../../passes/targets/ort-training/emit.js';
import type { OrtTrainingOptions } from '../../passes/targets/ort-training/options.js';
import { modelFixture, modelFixtures } from '../helpers/fixtures.js';
import { byStepTarget, byTrainingApi, difference } from './agreement.js';
import { adapted, batch, LORA } from './cases.js';
import { installed } from './training-runtime.js';

const STEPS = 20;
const LINEAR = { id: 'linear', learningRate: 1e-2, warmupSteps: 3, totalSteps: STEPS };
const COSINE = { id: 'cosine', learningRate: 0.2, warmupSteps: 4, totalSteps: 18 };
const EVERYWHERE = { targeting: { targets: 'all-linear' } };

/** Trains both ways; the loss has to move by more than 1 per mille, and courses agree to 1e-5 of their scale. */
async function agree(
  name: string,
  settings: Parameters<typeof adapted>[1],
  options: Partial<OrtTrainingOptions>,
): Promise<void> {
  const fixture = modelFixture(name);
  const model = await adapted(fixture, settings);
  const full = { loss: fixture.task, ...options };
  const { inputs } = emitOrtTraining(model, full);
  const { accumulation = 1 } = options;
  const batches = Array.from({ length: STEPS }, (_, t) =>
    Array.from({ length: accumulation }, (_, i) => batch(inputs, t * accumulation + i)),
  );
  const ours = await byStepTarget(model, full, batches);
  const theirs = await byTrainingApi(model, full, batches);
  expect(Math.abs(ours.held / ours.losses[0]! - 1)).toBeGreaterThan(1e-3);
  const { losses, params } = difference(theirs, ours);
  expect(losses).toBeLessThan(1e-5);
  expect(params).toBeLessThan(1e-5);
}

describe.skipIf(!installed)('the training API agrees with the step target', () => {
  const matrix = modelFixtures(
    ({ exporter, variant, dtype }) =>
      dtype === 'float32' && variant === (exporter === 'ts' ? 'static' : 'dynamic'),
  );
  it.each(matrix.map(({ name }) => name))('%s', async (name) => {
    await agree(name, { ...LORA, ...EVERYWHERE }, { clip: 0.5, schedule: LINEAR });
  });

  it('with dropout, whose masks follow from a counter in the checkpoint', async () => {
    const config = { rank: 3, alpha: 5, dropout: 0.3 };
    await agree('gpt2.ts.static', { method: 'lora', config, ...EVERYWHERE }, { schedule: LINEAR, seed: 41 });
  });

  it('with SGD on a cosine, clipped', async () => {
    await agree(
      'distilbert.ts.static',
      { ...LORA, ...EVERYWHERE },
      { optimizer: 'sgd', clip: 1, schedule: COSINE },
    );
  });

  it('with SGD, weight decay and a rate per group, over micro-batches', async () => {
    await agree(
      'distilbert.dynamo.dynamic',
      { method: 'lora', config: { rank: 3, alpha: 5, learningRateRatio: 3 }, ...EVERYWHERE },
      {
        optimizer: 'sgd',
        optimizerConfig: { weightDecay: 0.1 },
        accumulation: 2,
        schedule: { id: 'constant', learningRate: 0.05, warmupSteps: 2 },
      },
    );
  });

  it('with bottleneck adapters', async () => {
    await agree(
      'bert.ts.static',
      { method: 'pfeiffer', config: { reduction: 8 } },
      { clip: 1, schedule: LINEAR, optimizerConfig: { weightDecay: 0 } },
    );
  });

  it('with VeRA, whose matrices are part of the adapter and do not train', async () => {
    await agree(
      'distilbert.ts.static',
      { method: 'vera', config: { rank: 4 } },
      { schedule: { ...LINEAR, learningRate: 0.03 } },
    );
  });

  it('with frozen weights in the checkpoint', async () => {
    await agree(
      'roberta.ts.static',
      { ...LORA, ...EVERYWHERE },
      { frozen: 'checkpoint', schedule: LINEAR, optimizerConfig: { beta2: 0.98, weightDecay: 0.1 } },
    );
  });
});
