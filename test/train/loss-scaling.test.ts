/** Half-precision models: the loss scale follows overflows, and a step that overflows changes nothing. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { emitStep, type StepOptions } from '../../passes/targets/step.js';
import { artifactsInMemory, type TrainArtifacts } from '../../runtime/artifacts.js';
import type { Dataset } from '../../runtime/data/dataset.js';
import { type HostTensor, numbersOf, tensorOfNumbers } from '../../runtime/host-tensor.js';
import { latestCheckpoint, loadCheckpoint } from '../../runtime/train/checkpoint.js';
import { LossScaler } from '../../runtime/train/loss-scaler.js';
import { Stepper } from '../../runtime/train/stepper.js';
import { train } from '../../runtime/train/train.js';
import { readModel } from '../../src/onnx/index.js';
import { repositoryRoot } from '../helpers/fixtures.js';

const folder = mkdtempSync(join(tmpdir(), 'loss-scaling-'));
afterAll(() => rmSync(folder, { recursive: true }));
const open: Stepper[] = [];
afterEach(async () => {
  for (const stepper of open.splice(0)) await stepper.close();
});

async function artifacts(options: Partial<StepOptions> = {}, file = 'bert.ts.fp16'): Promise<TrainArtifacts> {
  const model = readModel(join(repositoryRoot, `fixtures/models/${file}.onnx`));
  const config = { rank: 4, alpha: 12 };
  insert(model, { method: 'lora', config, targeting: { targets: 'all-linear' }, seed: 3 });
  return artifactsInMemory(emitStep(model, { loss: 'classification', ...options }), model);
}

async function stepperOf(made: TrainArtifacts): Promise<Stepper> {
  const stepper = new Stepper(made, { threads: 1 });
  open.push(stepper);
  await stepper.load(made.initial);
  return stepper;
}

function batch({ manifest }: TrainArtifacts, seed: number): Record<string, HostTensor> {
  return Object.fromEntries(
    manifest.batch.map(({ name, dtype, shape, role }) => {
      const dims = shape.map((dim, axis) => (typeof dim === 'number' ? dim : [2, 6][axis]!));
      const count = dims.reduce((n, d) => n * d, 1);
      const below = role === 'label' || /type/.test(name) ? 2 : 30;
      const values = Array.from({ length: count }, (_, i) =>
        /mask/.test(name) ? 1 : (7 * i + seed) % below,
      );
      return [name, tensorOfNumbers(dtype, dims, values)];
    }),
  );
}

async function snapshot(stepper: Stepper): Promise<number[][]> {
  const tensors = [...(await stepper.params()).values(), ...Object.values(await stepper.state())];
  return tensors.map((tensor) => Array.from(numbersOf(tensor)));
}

describe('loss scaling', () => {
  it('halves at an overflow, doubles after steps without, counts what was skipped', () => {
    const lossScaling = { init: 8, growth: 2, backoff: 0.5, interval: 3 };
    const scaler = new LossScaler({ lossScaling } as TrainArtifacts['manifest']);
    const scales = [1, Number.POSITIVE_INFINITY, 1, Number.NaN, 1, 1, 1, 1].map((norm) => {
      scaler.note(norm);
      return scaler.scale;
    });
    expect(scales).toEqual([8, 4, 4, 2, 2, 2, 4, 4]);
    expect(scaler.state()).toEqual({ scale: 4, steady: 1, skipped: 2 });
  });

  it.each([1, 2])('trains a float16 model as a fixed scale does (%d micro-batches)', async (accumulation) => {
    const dynamic = await artifacts({ accumulation });
    const fixed = await artifacts({ accumulation, lossScale: 256 });
    expect(dynamic.manifest.precision).toEqual({ params: 'float32', model: 'float16' });
    expect(dynamic.manifest.lossScaling).not.toBeNull();
    expect(fixed.manifest.lossScaling).toBeNull();
    const losses: number[][] = [];
    for (const made of [dynamic, fixed]) {
      const stepper = await stepperOf(made);
      const run: number[] = [];
      for (let step = 1; step <= 6; step++) {
        const batches = Array.from({ length: accumulation }, (_, i) => batch(made, 2 * step + i));
        run.push((await stepper.step(batches, { lr: 0.01, step, seeds: [0, 0] })).loss);
      }
      losses.push(run);
    }
    // Gradients of half precision under two scales: 2⁻¹¹ each, through Adam, which divides by their size.
    for (const [i, loss] of losses[0]!.entries()) expect(Math.abs(loss - losses[1]![i]!)).toBeLessThan(0.01);
    expect(losses[0]!.at(-1)!).toBeLessThan(losses[0]![0]!);
  });

  it.each([1, 2])(
    'leaves everything as it was where the gradient overflows (%d micro-batches)',
    async (accumulation) => {
      const made = await artifacts({ accumulation });
      const stepper = await stepperOf(made);
      const batches = () => Array.from({ length: accumulation }, (_, i) => batch(made, i));
      const scalars = (step: number) => ({ lr: 0.01, step, seeds: [0, 0] });
      await stepper.step(batches(), scalars(1));
      const before = await snapshot(stepper);
      stepper.scaler.restore({ scale: 2 ** 30, steady: 0, skipped: 0 });
      let skipped = 0;
      let result = await stepper.step(batches(), scalars(2));
      while (result.skipped) {
        skipped++;
        expect(Number.isFinite(result.gradNorm)).toBe(false);
        expect(Number.isFinite(result.loss)).toBe(true);
        if (skipped < 3) expect(await snapshot(stepper)).toEqual(before);
        result = await stepper.step(batches(), scalars(2 + skipped));
      }
      expect(skipped).toBeGreaterThan(3);
      expect(stepper.scaler.state()).toEqual({ scale: 2 ** (30 - skipped), steady: 1, skipped });
      expect(await snapshot(stepper)).not.toEqual(before);
    },
  );

  it('trains a bfloat16 model without a scale, in float32 where there are no kernels', async () => {
    const made = await artifacts({}, 'bert.ts.bf16');
    expect(made.manifest.precision).toEqual({ params: 'float32', model: 'bfloat16' });
    expect(made.manifest.lossScaling).toBeNull();
    const stepper = await stepperOf(made);
    const losses: number[] = [];
    for (let step = 1; step <= 6; step++)
      losses.push((await stepper.step([batch(made, 1)], { lr: 0.01, step, seeds: [0] })).loss);
    expect(losses.at(-1)!).toBeLessThan(0.9 * losses[0]!);
  });

  it('resumes where the scale stood', async () => {
    const made = await artifacts();
    const data: Dataset = {
      source: 'test',
      length: 8,
      example: (i) => ({
        where: `example ${i}`,
        tensors: new Map([
          ['input_ids', { dims: [5], values: [1, 2 + i, 3, 4, 5] }],
          ['labels', { dims: [], values: [i % 2] }],
        ]),
      }),
    };
    const options = { artifacts: made, data, batchSize: 2, session: { threads: 1 }, checkpointEvery: 4 };
    const whole = await train({ ...options, out: join(folder, 'whole'), maxSteps: 8 });
    const path = (await latestCheckpoint(join(folder, 'whole/checkpoints')))!;
    expect((await loadCheckpoint(path)).run.lossScale).toEqual({ scale: 4096, steady: 8, skipped: 0 });
    const first = join(folder, 'whole/checkpoints/step-00000004.safetensors');
    const resumed = await train({ ...options, out: join(folder, 'rest'), maxSteps: 8, resume: first });
    expect(resumed.losses).toEqual(whole.losses.slice(4));
    expect(readFileSync(join(folder, 'rest/adapter.safetensors'))).toEqual(
      readFileSync(join(folder, 'whole/adapter.safetensors')),
    );
  });
});
