/** Options of the step target, shared by `emit` and `train`. */
import { Command } from 'commander';
import { LOSSES } from '../../passes/losses/index.js';
import { OPTIMIZERS } from '../../passes/optimizers/index.js';
import type { StepOptions } from '../../passes/targets/step.js';
import { SCHEDULES } from '../../runtime/train/schedule.js';
import { choice } from './choice.js';
import { count, countFromZero, number, pair } from './options.js';

export interface StepFlags {
  readonly loss?: string;
  readonly lossSet?: Record<string, unknown>;
  readonly optimizer: string;
  readonly optimizerSet?: Record<string, unknown>;
  readonly lr: number;
  readonly schedule: string;
  readonly warmup: number;
  readonly weightDecay?: number;
  readonly clip?: number;
  readonly accumulation: number;
  readonly dropout?: number;
}

/** The flags of `addStepOptions` by the name that commander gives them. */
export const SETTLED: ReadonlySet<string> = new Set(
  addStepOptions(new Command()).options.map((option) => option.attributeName()),
);

/** Adds the options of a training graph to a command. */
export function addStepOptions(command: Command): Command {
  return command
    .addOption(choice('--loss <id>', 'what is minimised', [...LOSSES.keys()]))
    .option(
      '--loss-set <key=value>',
      'setting of the loss, e.g. output=logits labelSmoothing=0.1; repeatable',
      pair,
    )
    .addOption(choice('--optimizer <id>', 'update rule', [...OPTIMIZERS.keys()]).default('adamw'))
    .option('--optimizer-set <key=value>', 'setting of the optimizer, e.g. beta2=0.98; repeatable', pair)
    .option('--lr <rate>', 'peak learning rate', number, 1e-3)
    .addOption(choice('--schedule <id>', 'course of the learning rate', SCHEDULES).default('constant'))
    .option('--warmup <steps>', 'steps of linear warm-up', countFromZero, 0)
    .option('--weight-decay <λ>', 'decoupled weight decay', number)
    .option('--clip <norm>', 'clip the gradient to this global norm', number)
    .option('--accumulation <n>', 'micro-batches per optimizer step', count, 1)
    .option('--dropout <p>', 'override the dropout that the adapter was inserted with', number);
}

/** What the flags ask of `emitStep`; `loss` must be given. */
export function stepOptions(flags: StepFlags & { readonly loss: string }): StepOptions {
  const { weightDecay, optimizerSet, clip, dropout } = flags;
  return {
    loss: flags.loss,
    ...(flags.lossSet === undefined ? {} : { lossConfig: flags.lossSet }),
    optimizer: flags.optimizer,
    optimizerConfig: { ...(weightDecay === undefined ? {} : { weightDecay }), ...optimizerSet },
    schedule: { id: flags.schedule, learningRate: flags.lr, warmupSteps: flags.warmup },
    accumulation: flags.accumulation,
    ...(clip === undefined ? {} : { clip }),
    ...(dropout === undefined ? {} : { dropout }),
  };
}
