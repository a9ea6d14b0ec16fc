/** Training on WebGPU against the CPU: every node on the device, parameters and optimizer state resident there. */
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { emitStep, type StepOptions } from '../../passes/targets/step.js';
import { artifactsInMemory, type TrainArtifacts } from '../../runtime/artifacts.js';
import { type HostTensor, numbersOf } from '../../runtime/host-tensor.js';
import type { SessionOptions } from '../../runtime/session.js';
import { Stepper } from '../../runtime/train/stepper.js';
import { randomStream } from '../../src/initializer.js';
import { readModel } from '../../src/onnx/index.js';
import { repositoryRoot } from '../helpers/fixtures.js';
import { tokenBatch } from '../helpers/token-batch.js';
import { whyNoGpu } from './software-gpu.js';

const missing = whyNoGpu();
if (missing !== undefined) console.warn(`WebGPU is not tested: ${missing}`);

const STEPS = 20;
const open: Stepper[] = [];
afterEach(async () => {
  for (const stepper of open.splice(0)) await stepper.close();
});

async function artifacts(file: string, dropout: number, options: StepOptions): Promise<TrainArtifacts> {
  const model = readModel(join(repositoryRoot, 'fixtures/models', `${file}.onnx`));
  const config = { rank: 4, alpha: 12, dropout };
  insert(model, { method: 'lora', config, targeting: { targets: 'all-linear' }, seed: 3 });
  return artifactsInMemory(emitStep(model, options), model);
}

function batch(made: TrainArtifacts, seed: number): Record<string, HostTensor> {
  const random = randomStream(seed, 'batch');
  return tokenBatch(made, (_, below) => Math.floor(random() * below));
}

interface Trained {
  readonly losses: number[];
  readonly norms: number[];
  readonly evaluated: number;
  readonly params: Map<string, HostTensor>;
  readonly state: Record<string, HostTensor>;
}

async function trained(made: TrainArtifacts, session: SessionOptions): Promise<Trained> {
  const stepper = new Stepper(made, { threads: 1, ...session });
  open.push(stepper);
  await stepper.load(made.initial);
  await stepper.open();
  const losses: number[] = [];
  const norms: number[] = [];
  const micro = stepper.accumulation;
  for (let step = 1; step <= STEPS; step++) {
    const batches = Array.from({ length: micro }, (_, i) => batch(made, (step * micro + i) % 5));
    const seeds = batches.map((_, i) => 10 * step + i);
    const result = await stepper.step(batches, { lr: 0.01, step, seeds });
    losses.push(result.loss);
    norms.push(result.gradNorm);
  }
  const { loss } = await stepper.evaluate(batch(made, 1));
  return { losses, norms, evaluated: loss, params: await stepper.params(), state: await stepper.state() };
}

const worst = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)));

describe.skipIf(missing !== undefined)('training on WebGPU', () => {
  it.each([
    ['bert.ts.dynamic', 0, { loss: 'classification', clip: 1 }],
    ['gpt2.dynamo.dynamic', 0.1, { loss: 'causal-lm', accumulation: 2 }],
    ['llama.ts.dynamic', 0.1, { loss: 'causal-lm', clip: 0.5 }],
  ] as const)(
    '%s, dropout %d: 20 losses as on the CPU, nothing on the CPU',
    async (file, dropout, options) => {
      const made = await artifacts(file, dropout, options);
      const cpu = await trained(made, {});
      const gpu = await trained(made, { ep: 'webgpu', cpuFallback: false });
      expect(cpu.losses.at(-1)!).toBeLessThan(0.9 * cpu.losses[0]!);
      expect(worst(gpu.losses, cpu.losses)).toBeLessThan(1e-4);
      expect(worst(gpu.norms, cpu.norms)).toBeLessThan(1e-3 * Math.max(...cpu.norms));
      expect(Math.abs(gpu.evaluated - cpu.evaluated)).toBeLessThan(1e-4);
      for (const [key, tensor] of cpu.params)
        expect(worst(numbersOf(gpu.params.get(key)!), numbersOf(tensor)), key).toBeLessThan(1e-3);
      expect(Object.keys(gpu.state)).toEqual(Object.keys(cpu.state));
    },
  );
});
