/** Forward passes and optimizer steps. */
import { z } from 'zod';
import { emitStep } from '../../../passes/targets/step.js';
import { readModel } from '../../../src/onnx/index.js';
import { artifactsInMemory, loadArtifacts, type TrainArtifacts } from '../../artifacts.js';
import { createSession } from '../../session.js';
import { Stepper } from '../../train/stepper.js';
import { type BenchTask, medianMs } from '../task.js';
import { copyOf, inputsOf, labelsOf, type RunInput, runInput } from './batch.js';
import { withLora } from './lora.js';
import { timesByOperator } from './profile.js';

const WARMUP = 2;

/** Forward pass of a model: `forwardMs`. */
export const forward: BenchTask = async (input) => {
  const { model, ...size } = runInput.extend({ model: z.string() }).parse(input);
  const session = await createSession(model, size.options);
  const feeds = inputsOf(size);
  const forwardMs = await medianMs(() => session.run(feeds), size.runs, WARMUP);
  await session.release();
  return { forwardMs };
};

/** Optimizer steps over the artifacts of a folder: `stepMs`, `loss`; with a trace also `operators`. */
export const step: BenchTask = async (input) => {
  const { folder, ...size } = runInput.extend({ folder: z.string() }).parse(input);
  const figures = await steps(await loadArtifacts(folder), size);
  const { profile } = size.options;
  // The first step of a trace pays for allocation; it is left out of the averages.
  return profile === undefined ? figures : { ...figures, operators: timesByOperator(profile, 1) };
};

/** Insertion, emission and optimizer steps in one process, as `peft-compile train` does them: `stepMs`, `loss`. */
export const train: BenchTask = async (input) => {
  const { model: path, rank, ...size } = runInput.extend({ model: z.string(), rank: z.int() }).parse(input);
  const model = readModel(path);
  withLora(model, rank, ['query', 'value']);
  const artifacts = await artifactsInMemory(emitStep(model, { loss: 'classification', clip: 1 }), model);
  return steps(artifacts, size);
};

async function steps(artifacts: TrainArtifacts, size: RunInput): Promise<{ stepMs: number; loss: number }> {
  const stepper = new Stepper(artifacts, size.options);
  await stepper.load(artifacts.initial);
  const label = artifacts.manifest.batch.find(({ role }) => role === 'label')?.name ?? 'labels';
  const micro = { ...size, batch: size.batch / stepper.accumulation };
  const batch = { ...inputsOf(micro), [label]: labelsOf(micro) };
  let number = 0;
  let loss = 0;
  const stepMs = await medianMs(
    async () => {
      number++;
      const batches = Array.from({ length: stepper.accumulation }, () => copyOf(batch));
      const seeds = batches.map((_, i) => number * batches.length + i);
      loss = (await stepper.step(batches, { lr: 1e-4, step: number, seeds })).loss;
    },
    size.runs,
    WARMUP,
  );
  await stepper.close();
  return { stepMs, loss };
}
