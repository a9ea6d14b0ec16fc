/** `emit --target ort-training`: its options and its report. */
import type { Command } from 'commander';
import type { AdamMode } from '../../../passes/targets/ort-training/options.js';
import { produceOrtTraining } from '../../../runtime/ort-training/produce.js';
import { fail } from '../../errors.js';
import { countOf, formatType, tensorType } from '../../types.js';
import { choice } from '../choice.js';
import { count, countFromZero } from '../options.js';
import { formatCount, print, printJson } from '../output.js';
import type { StepFlags } from '../step-options.js';
import { type CommonFlags, type Emission, outOf } from './common.js';
import { trainingOptions } from './training.js';

export interface OrtTrainingFlags extends CommonFlags, StepFlags {
  readonly steps?: number;
  readonly rate: 'graph' | 'runtime';
  readonly adamMode: AdamMode;
  readonly frozen: 'graph' | 'checkpoint';
  readonly checkpointData: 'auto' | 'always' | 'never';
  readonly nominal?: boolean;
  readonly trainOutputs: 'loss' | 'metrics';
  readonly dropoutSeed: number;
  readonly from?: string;
}

export function addOrtTrainingOptions(command: Command): Command {
  return command
    .option('--steps <n>', 'optimizer steps of the run, which linear and cosine schedules need', count)
    .addOption(
      choice('--rate <source>', 'the learning rate comes from the graph, or from the caller', [
        'graph',
        'runtime',
      ]).default('graph'),
    )
    .addOption(
      choice('--adam-mode <mode>', 'where Adam corrects its bias and decays weights', [
        'torch',
        'huggingface',
      ]).default('torch'),
    )
    .addOption(
      choice('--frozen <place>', 'frozen weights in the graphs, or once, in the checkpoint', [
        'graph',
        'checkpoint',
      ]).default('graph'),
    )
    .addOption(
      choice('--checkpoint-data <mode>', 'tensors in a file beside the checkpoint; auto from 1.8 GB', [
        'auto',
        'always',
        'never',
      ]).default('auto'),
    )
    .option('--nominal', 'write a nominal checkpoint too')
    .addOption(
      choice('--train-outputs <what>', 'what a training step gives back', ['loss', 'metrics']).default(
        'loss',
      ),
    )
    .option('--dropout-seed <n>', 'seed of the first dropout masks', countFromZero, 0)
    .option('--from <checkpoint>', 'go on from a checkpoint of peft-compile train');
}

export async function emitForOrtTraining(emission: Emission<OrtTrainingFlags>): Promise<void> {
  const { model, flags } = emission;
  const out = outOf(flags);
  const { schedule, lossScale, precision, ...options } = trainingOptions(emission);
  if (precision !== undefined)
    return fail('E_UNSUPPORTED', {
      message: 'The ort-training target emits no mixed precision',
      remedy: 'Leave --precision away, or emit with --target step',
    });
  if (lossScale === 'dynamic')
    return fail('E_UNSUPPORTED', {
      message: 'The ort-training target cannot adapt the loss scale while it trains',
      remedy: 'Give --loss-scale a number, or leave it away',
    });
  const { steps, rate, adamMode, frozen, checkpointData, nominal = false, trainOutputs, from } = flags;
  const produced = await produceOrtTraining(model, {
    ...options,
    ...(lossScale === undefined ? {} : { lossScale }),
    ...(schedule === undefined ? {} : { schedule: { ...schedule, totalSteps: steps ?? null } }),
    rate,
    adamMode,
    frozen,
    trainOutputs,
    accumulation: flags.accumulation,
    seed: flags.dropoutSeed,
    nominal,
    externalData: checkpointData,
    write: { weights: flags.weights },
    ...(from === undefined ? {} : { from }),
    out,
    force: flags.force ?? false,
  });
  const { files, inputs, outputs, evalOutputs, checkpoint } = produced;
  if (flags.json === true)
    return printJson({
      target: 'ort-training',
      files,
      inputs,
      outputs,
      evalOutputs,
      params: checkpoint.trained.map(({ key, shape }) => ({ key, shape })),
      frozen: [...produced.state.frozen.keys()],
    });
  for (const name of ['training', 'evaluation', 'optimizer'] as const)
    print(`${name.padEnd(10)} ${formatCount(produced[name].graph.nodeCount)} nodes`);
  const trained = checkpoint.trained.reduce((sum, { shape }) => sum + countOf(shape), 0);
  print(`${formatCount(trained)} trained weights in ${checkpoint.trained.length} tensors`);
  print(
    `feeds  ${inputs.map(({ name, dtype, shape }) => `${name} ${formatType(tensorType(dtype, shape))}`).join('  ')}`,
  );
  print(`written to ${out}`);
}
