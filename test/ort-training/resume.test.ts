/** A run that our trainer began goes on in the training API, and its checkpoint becomes an adapter again. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { emitStep } from '../../passes/targets/step.js';
import { artifactsInMemory } from '../../runtime/artifacts.js';
import type { Dataset } from '../../runtime/data/dataset.js';
import { numbersOf } from '../../runtime/host-tensor.js';
import { produceOrtTraining } from '../../runtime/ort-training/produce.js';
import { readCheckpoint } from '../../runtime/ort-training/read-checkpoint.js';
import { train } from '../../runtime/train/train.js';
import { PeftCompileError } from '../../src/errors.js';
import { modelFixture } from '../helpers/fixtures.js';
import { numbers } from '../helpers/run.js';
import type { Batch } from '../targets/driver.js';
import { trainStep } from './agreement.js';
import { adapted, batch } from './cases.js';
import { installed, openTraining, parametersOf } from './training-runtime.js';

const folder = mkdtempSync(join(tmpdir(), 'peft-compile-ort-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Rows of all batches, in order. */
function datasetOf(batches: readonly Batch[]): Dataset {
  const examples = batches.flatMap((tensors, at) =>
    Array.from({ length: 4 }, (_, row) => ({
      where: `batch ${at}, row ${row}`,
      tensors: new Map(
        Object.entries(tensors).map(([name, tensor]) => {
          const dims = tensor.dims.slice(1);
          const width = dims.reduce((product, dim) => product * dim, 1);
          return [name, { dims, values: numbers(tensor).slice(row * width, (row + 1) * width) }];
        }),
      ),
    })),
  );
  return { source: 'batches', length: examples.length, example: (index) => examples[index]! };
}

const OPTIONS = {
  loss: 'causal-lm',
  clip: 0.5,
  optimizerConfig: { weightDecay: 0.1 },
  schedule: { id: 'cosine', learningRate: 1e-2, warmupSteps: 3, totalSteps: 20 },
} as const;

describe.skipIf(!installed)('a run of peft-compile train', () => {
  it('goes on in the training API from its checkpoint', async () => {
    const config = { rank: 2, alpha: 3, dropout: 0.2 };
    const model = await adapted(modelFixture('gpt2.ts.static'), {
      method: 'lora',
      config,
      targeting: { targets: 'all-linear' },
    });
    const emitted = emitStep(model, OPTIONS);
    const batches = Array.from({ length: 20 }, (_, t) => batch(emitted.manifest.batch, t));
    const out = join(folder, 'run');
    const whole = await train({
      artifacts: await artifactsInMemory(emitted, model),
      data: datasetOf(batches),
      out,
      batchSize: 4,
      shuffle: false,
      checkpointEvery: 10,
      keepCheckpoints: 5,
    });
    expect(whole.steps).toBe(20);

    const from = join(out, 'checkpoints/step-00000010.safetensors');
    const artifacts = await produceOrtTraining(model, { ...OPTIONS, from, out: join(folder, 'device') });
    expect(artifacts.state.optimizer?.step).toBe(10);
    const session = await openTraining({
      ...artifacts,
      state: readCheckpoint(join(folder, 'device/checkpoint')),
    });
    const losses: number[] = [];
    for (const next of batches.slice(10)) losses.push(...(await trainStep(session, [next])));
    const params = await parametersOf(session, artifacts.checkpoint.trained);
    await session.release();
    for (const [i, loss] of losses.entries())
      expect(Math.abs(loss / whole.losses[10 + i]! - 1)).toBeLessThan(1e-5);
    for (const [key, tensor] of whole.params) {
      const wanted = numbersOf(tensor);
      const scale = Math.max(...wanted.map(Math.abs));
      const found = params.get(key)!;
      expect(Math.max(...found.map((value, i) => Math.abs(value - wanted[i]!))) / scale).toBeLessThan(1e-5);
    }
  });

  it('is refused with another optimizer or adapter', async () => {
    const from = join(folder, 'run/checkpoints/step-00000010.safetensors');
    const settings = { method: 'lora', config: { rank: 4, alpha: 3 } } as const;
    const other = await adapted(modelFixture('gpt2.ts.static'), settings);
    for (const [model, options] of [
      [other, OPTIONS],
      [
        await adapted(modelFixture('gpt2.ts.static'), {
          method: 'lora',
          config: { rank: 2, alpha: 3 },
          targeting: { targets: ['c_attn'] },
        }),
        OPTIONS,
      ],
    ] as const) {
      const error = await produceOrtTraining(model, { ...options, from }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(PeftCompileError);
      expect(error).toMatchObject({ code: 'E_INVALID_DATA', where: from });
    }
  });
});
