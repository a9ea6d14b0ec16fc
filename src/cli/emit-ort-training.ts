/** `emit --target ort-training`: its options and its report. */
import type { Command } from 'commander';
import type { AdamMode } from '../../passes/targets/ort-training/options.js';
import type { StepOptions } from '../../passes/targets/step.js';
import { produceOrtTraining } from '../../runtime/ort-training/produce.js';
import { fail } from '../errors.js';
import type { Model } from '../model.js';
import { formatType, tensorType } from '../types.js';
import { choice } from './choice.js';
import { count, countFromZero } from './options.js';
import { formatCount, print, printJson } from './output.js';

export interface OrtTrainingFlags {
  readonly steps?: number;
  readonly rate: 'graph' | 'runtime';
  readonly adamMode: AdamMode;
  readonly frozen: 'graph' | 'checkpoint';
  readonly checkpointData: 'auto' | 'always' | 'never';
  readonly nominal?: boolean;
  readonly trainOutputs: 'loss' | 'metrics';
  readonly dropoutSeed: number;
  readonly from?: string;
  readonly accumulation: number;
  readonly weights: 'link' | 'copy';
  readonly out: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

const PREFIX = 'ort-training target:';

export function addOrtTrainingOptions(command: Command): Command {
  return command
    .option(
      '--steps <n>',
      `${PREFIX} optimizer steps of the run, which linear and cosine schedules need`,
      count,
    )
    .addOption(
      choice('--rate <source>', `${PREFIX} the learning rate comes from the graph, or from the caller`, [
        'graph',
        'runtime',
      ]).default('graph'),
    )
    .addOption(
      choice('--adam-mode <mode>', `${PREFIX} where Adam corrects its bias and decays weights`, [
        'torch',
        'huggingface',
      ]).default('torch'),
    )
    .addOption(
      choice('--frozen <place>', `${PREFIX} frozen weights in the graphs, or once, in the checkpoint`, [
        'graph',
        'checkpoint',
      ]).default('graph'),
    )
    .addOption(
      choice(
        '--checkpoint-data <mode>',
        `${PREFIX} tensors in a file beside the checkpoint; auto from 1.8 GB`,
        ['auto', 'always', 'never'],
      ).default('auto'),
    )
    .option('--nominal', `${PREFIX} write a nominal checkpoint too`)
    .addOption(
      choice('--train-outputs <what>', `${PREFIX} what a training step gives back`, [
        'loss',
        'metrics',
      ]).default('loss'),
    )
    .option('--dropout-seed <n>', `${PREFIX} seed of the first dropout masks`, countFromZero, 0)
    .option('--from <checkpoint>', `${PREFIX} go on from a checkpoint of peft-compile train`);
}

export async function emitForOrtTraining(
  model: Model,
  { schedule, lossScale, ...options }: StepOptions,
  flags: OrtTrainingFlags,
): Promise<void> {
  if (lossScale === 'dynamic')
    return fail('E_UNSUPPORTED', {
      message: 'The ort-training target cannot adapt the loss scale while it trains',
      remedy: 'Give --loss-scale a number, or leave it away',
    });
  const { steps, rate, adamMode, frozen, checkpointData, nominal = false, trainOutputs, from, out } = flags;
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
  const trained = checkpoint.trained.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  print(`${formatCount(trained)} trained weights in ${checkpoint.trained.length} tensors`);
  print(
    `feeds  ${inputs.map(({ name, dtype, shape }) => `${name} ${formatType(tensorType(dtype, shape))}`).join('  ')}`,
  );
  print(`written to ${out}`);
}
