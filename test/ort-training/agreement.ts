/** Runs the training API and the step target over the same batches. */
import type ort from 'onnxruntime-node';
import { emitOrtTraining } from '../../passes/targets/ort-training/emit.js';
import type { OrtTrainingOptions } from '../../passes/targets/ort-training/options.js';
import { emitStep, type StepArtifacts } from '../../passes/targets/step.js';
import { ortTrainingArtifacts } from '../../runtime/ort-training/artifacts.js';
import { learningRate } from '../../runtime/train/schedule.js';
import { hasBfloat16, widenBfloat16 } from '../../runtime/widen.js';
import type { Model } from '../../src/model.js';
import { numbers } from '../helpers/run.js';
import { type Batch, Driver } from '../targets/driver.js';
import {
  openTraining,
  parametersOf,
  type TrainingSession,
  trainingRuntime,
  type WebTensor,
} from './training-runtime.js';

export interface Course {
  readonly losses: readonly number[];
  readonly params: ReadonlyMap<string, readonly number[]>;
  /** Mean loss of the first batch, by the eval model. */
  readonly held: number;
}

/** The batch in the tensors of the other package. */
export async function feeds(batch: Batch): Promise<Record<string, WebTensor>> {
  const { Tensor } = await trainingRuntime();
  return Object.fromEntries(
    Object.entries(batch).map(([name, { type, data, dims }]) => [
      name,
      new Tensor(type, data as BigInt64Array, dims),
    ]),
  );
}

/** One optimizer step over micro-batches; their losses. */
export async function trainStep(session: TrainingSession, batches: readonly Batch[]): Promise<number[]> {
  const losses: number[] = [];
  for (const batch of batches) {
    const { loss } = await session.runTrainStep(await feeds(batch));
    losses.push(Number(loss?.data[0]));
  }
  await session.runOptimizerStep();
  await session.lazyResetGrad();
  return losses;
}

/** `batches[t]` are the micro-batches of step t. */
export async function byTrainingApi(
  model: Model,
  options: OrtTrainingOptions,
  batches: readonly (readonly Batch[])[],
): Promise<Course> {
  const emitted = emitOrtTraining(model, options);
  const session = await openTraining(await ortTrainingArtifacts(emitted, model));
  try {
    const losses: number[] = [];
    for (const micro of batches) losses.push(...(await trainStep(session, micro)));
    const { loss } = await session.runEvalStep(await feeds(batches[0]![0]!));
    return {
      losses,
      params: await parametersOf(session, emitted.checkpoint.trained),
      held: Number(loss?.data[0]),
    };
  } finally {
    await session.release();
  }
}

/** Without bfloat16, which the CPU has no kernels for. */
function inFloat32(emitted: StepArtifacts): StepArtifacts {
  const { manifest, ...models } = emitted;
  const wide = Object.entries(models).map(([name, model]) => [
    name,
    hasBfloat16(model) ? widenBfloat16(model) : model,
  ]);
  return { manifest, ...Object.fromEntries(wide) } as StepArtifacts;
}

export async function byStepTarget(
  model: Model,
  options: OrtTrainingOptions,
  batches: readonly (readonly Batch[])[],
  session: ort.InferenceSession.SessionOptions = {},
): Promise<Course> {
  const { loss, lossConfig, optimizer, optimizerConfig, clip, groups, dropout, inputs, seed = 0 } = options;
  const { schedule = { id: 'constant', learningRate: 1e-3 }, accumulation = 1 } = options;
  const given = { lossConfig, optimizer, optimizerConfig, clip, groups, dropout, inputs };
  const emitted = emitStep(model, {
    loss,
    accumulation,
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  });
  const driver = await Driver.open(model, inFloat32(emitted), session);
  try {
    const losses: number[] = [];
    for (const [t, micro] of batches.entries()) {
      const { id, warmupSteps = 0, totalSteps } = schedule;
      const lr = learningRate(
        { id, learningRate: schedule.learningRate, warmupSteps, totalSteps: totalSteps ?? 1 },
        t + 1,
      );
      await driver.step(micro, lr, seed + t * accumulation, (outputs) =>
        losses.push(numbers(outputs.loss)[0]!),
      );
    }
    const held = numbers((await driver.run('eval', batches[0]![0]!)).loss)[0]!;
    const { params } = emitted.manifest;
    return {
      losses,
      params: new Map(params.map(({ key, input }) => [key, numbers(driver.carried.get(input))])),
      held,
    };
  } finally {
    await driver.close();
  }
}

/** Largest difference of losses, and of parameters, each relative to the largest number of its tensor. */
export function difference(a: Course, b: Course): { losses: number; params: number } {
  const relative = (x: readonly number[], y: readonly number[]): number => {
    const scale = Math.max(...y.map(Math.abs), 1e-30);
    return Math.max(...x.map((value, i) => Math.abs(value - y[i]!))) / scale;
  };
  if (a.losses.length !== b.losses.length || a.params.size !== b.params.size)
    return { losses: Number.POSITIVE_INFINITY, params: Number.POSITIVE_INFINITY };
  const losses = [...a.losses, a.held].map((loss, i) => relative([loss], [[...b.losses, b.held][i]!]));
  const params = [...a.params].map(([key, values]) => relative(values, b.params.get(key) ?? [Number.NaN]));
  return { losses: Math.max(...losses), params: Math.max(...params) };
}
