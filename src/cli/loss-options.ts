/** Options that say what is computed of a model: the loss, and inputs that are settled once for all. */
import type { Command } from 'commander';
import { LOSSES } from '../../passes/losses/index.js';
import type { InputSetting, InputSettings } from '../../passes/normalize/fixed-inputs.js';
import type { StepOptions } from '../../passes/targets/step.js';
import { fail } from '../errors.js';
import { choice } from './choice.js';
import { pair } from './options.js';

export interface LossFlags {
  readonly loss?: string;
  readonly lossSet?: Record<string, unknown>;
}

export interface InputFlags {
  readonly set?: Record<string, unknown>;
}

export function addLossOptions(command: Command, summary: string): Command {
  return command
    .addOption(choice('--loss <id>', summary, [...LOSSES.keys()]))
    .option(
      '--loss-set <key=value>',
      'setting of the loss, e.g. output=logits labelSmoothing=0.1; repeatable',
      pair,
    );
}

export function addInputOptions(command: Command): Command {
  return command.option(
    '--set <input=value>',
    'fix an input of the model: a number, true, false, or empty for a past; feed leaves it to the data; repeatable, e.g. use_cache_branch=false',
    pair,
  );
}

/** The loss that was asked for. Throws E_USAGE where none was; `what` needs it. */
export function lossOf({ loss }: LossFlags, what: string, where: string): string {
  return (
    loss ??
    fail('E_USAGE', {
      message: `${what} needs --loss`,
      where,
      remedy: `E.g. --loss causal-lm, --loss classification; one of ${[...LOSSES.keys()].join(', ')}`,
    })
  );
}

/** Settings of the loss and of inputs. Throws E_USAGE for a value that no input can be set to. */
export function lossSettings({
  lossSet,
  set,
}: LossFlags & InputFlags): Pick<StepOptions, 'lossConfig' | 'inputs'> {
  return {
    ...(lossSet === undefined ? {} : { lossConfig: lossSet }),
    ...(set === undefined ? {} : { inputs: inputSettings(set) }),
  };
}

function inputSettings(given: Readonly<Record<string, unknown>>): InputSettings {
  return Object.fromEntries(
    Object.entries(given).map(([name, value]): [string, InputSetting] => {
      if (value === 'feed' || value === 'empty' || typeof value === 'number' || typeof value === 'boolean')
        return [name, value];
      return fail('E_USAGE', {
        message: `--set ${name}=${String(value)} is no setting of an input`,
        remedy: 'Give a number, true, false, empty or feed',
      });
    }),
  );
}
