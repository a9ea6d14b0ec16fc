/** Options of the step target, shared by `emit` and `train`. */
import { Command } from 'commander';
import type { Method } from '../../passes/methods/contract/method.js';
import { OPTIMIZERS } from '../../passes/optimizers/index.js';
import type { StepOptions } from '../../passes/targets/step.js';
import { precisionFor } from '../../runtime/ep/precision.js';
import { SCHEDULES } from '../../runtime/train/schedule.js';
import { choice } from './choice.js';
import { loadUserConfig, type TrainConfig } from './config.js';
import { addConfigOptions } from './config-option.js';
import {
  addInputOptions,
  addLossOptions,
  type InputFlags,
  type LossFlags,
  lossSettings,
} from './loss-options.js';
import { count, countFromZero, number, pair } from './options.js';

export interface StepFlags extends LossFlags, InputFlags {
  readonly optimizer: string;
  readonly optimizerSet?: Record<string, unknown>;
  readonly lr: number;
  readonly schedule: string;
  readonly warmup: number;
  readonly weightDecay?: number;
  readonly clip?: number;
  readonly accumulation: number;
  readonly dropout?: number;
  readonly lossScale?: number | 'dynamic';
  readonly precision?: 'float16' | 'bfloat16';
  readonly recompute?: boolean | number;
  readonly config?: string | false;
}

/** The flags that shape a training graph, by the name that commander gives them. */
export const SETTLED: ReadonlySet<string> = new Set(
  addGraphOptions(new Command()).options.map((option) => option.attributeName()),
);

/** Adds the options of a training graph to a command, and the config file that may hold them. */
export function addStepOptions(command: Command): Command {
  return addConfigOptions(addGraphOptions(command, GRAPH_GROUPS)).hook('preAction', (_command, verb) =>
    applyTrainConfig(verb),
  );
}

/** Entries of a config file whose option has another name. */
const RENAMED: { readonly [Key in keyof TrainConfig]?: string } = {
  learningRate: 'lr',
  lossConfig: 'lossSet',
  optimizerConfig: 'optimizerSet',
};

/** Options that a config file must not bring where the command line has the other. */
const EXCLUSIVE: Readonly<Record<string, string>> = {
  microBatch: 'accumulation',
  accumulation: 'microBatch',
};

/** Lays the training options of the config file under those of the command line. */
export async function applyTrainConfig(verb: Command): Promise<void> {
  const { config } = verb.opts<{ config?: string | false }>();
  const { train, seed } = await loadUserConfig(config);
  const given = (name: string) => verb.getOptionValueSource(name) === 'cli';
  const known = new Set(verb.options.map((option) => option.attributeName()));
  for (const [key, value] of Object.entries({ ...train, seed })) {
    const name = RENAMED[key as keyof TrainConfig] ?? key;
    if (value === undefined || !known.has(name) || given(name) || given(EXCLUSIVE[name] ?? '')) continue;
    verb.setOptionValueWithSource(name, value, 'config');
  }
}

/** Headings of the options of a training graph, where a verb has others beside them. */
const GRAPH_GROUPS = { loss: 'Loss:', optimizer: 'Optimizer:', graph: 'Training graph:' } as const;

/** Adds the options of a training graph alone, under headings of their own where some are given. */
export function addGraphOptions(command: Command, groups?: typeof GRAPH_GROUPS): Command {
  const under = (group: keyof typeof GRAPH_GROUPS) =>
    groups === undefined ? command : command.optionsGroup(groups[group]);
  addLossOptions(under('loss'), 'what is minimised');
  under('optimizer')
    .addOption(choice('--optimizer <id>', 'update rule', [...OPTIMIZERS.keys()]).default('adamw'))
    .option('--optimizer-set <key=value>', 'setting of the optimizer, e.g. beta2=0.98; repeatable', pair)
    .option('--lr <rate>', 'peak learning rate', number, 1e-3)
    .addOption(choice('--schedule <id>', 'course of the learning rate', SCHEDULES).default('constant'))
    .option('--warmup <steps>', 'steps of linear warm-up', countFromZero, 0)
    .option('--weight-decay <λ>', 'decoupled weight decay', number)
    .option('--clip <norm>', 'clip the gradient to this global norm', number)
    .option('--accumulation <n>', 'micro-batches per optimizer step', count, 1);
  under('graph')
    .option(
      '--loss-scale <factor>',
      'factor on the loss in the backward pass: a number, or dynamic (default: dynamic in float16, 1 otherwise)',
      (text) => (text === 'dynamic' ? text : number(text)),
    )
    .addOption(
      choice(
        '--precision <dtype>',
        'mixed precision: frozen weights and products in half precision, trainables, loss and what is sensitive in float32',
        ['float16', 'bfloat16'],
      ),
    )
    .option('--dropout <p>', 'override the dropout that the adapter was inserted with', number)
    .option(
      '--recompute [groups]',
      'compute activations again in the backward pass instead of keeping them; without a number, as memory likes it best',
      count,
    );
  return addInputOptions(command);
}

/**
 * What the flags ask of `emitStep`; `loss` must be given. `methods` are those of the config file; `ep` is the provider
 * that the graphs are for, where that is known. Throws E_UNSUPPORTED for a precision that the provider lacks.
 */
export function stepOptions(
  flags: StepFlags & { readonly loss: string },
  methods: readonly Method[] = [],
  ep?: string,
): StepOptions {
  const { weightDecay, optimizerSet, clip, dropout, lossScale, precision, recompute } = flags;
  return {
    loss: flags.loss,
    methods,
    ...lossSettings(flags),
    optimizer: flags.optimizer,
    optimizerConfig: { ...(weightDecay === undefined ? {} : { weightDecay }), ...optimizerSet },
    schedule: { id: flags.schedule, learningRate: flags.lr, warmupSteps: flags.warmup },
    accumulation: flags.accumulation,
    ...(clip === undefined ? {} : { clip }),
    ...(dropout === undefined ? {} : { dropout }),
    ...(lossScale === undefined ? {} : { lossScale }),
    ...(precision === undefined ? {} : { precision: precisionFor(precision, ep) }),
    ...(recompute === undefined ? {} : { recompute }),
  };
}
