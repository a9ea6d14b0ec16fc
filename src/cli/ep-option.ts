/** The options that choose where graphs run. */
import type { Command } from 'commander';
import { PROVIDERS } from '../../runtime/ep/index.js';
import type { SessionOptions } from '../../runtime/session.js';
import { choice } from './choice.js';

export interface EpFlags {
  readonly ep: NonNullable<SessionOptions['ep']>;
  /** False with `--no-cpu-fallback`. */
  readonly cpuFallback: boolean;
}

export function addEpOptions(command: Command): Command {
  return command
    .addOption(
      choice('--ep <provider>', 'where graphs run; peft-compile doctor --ep … checks it', [
        ...PROVIDERS.keys(),
      ]).default('cpu'),
    )
    .option('--no-cpu-fallback', 'fail where a node would run on the CPU instead of on the device');
}

/** Nothing where the CPU was asked for. */
export function epOptions({ ep, cpuFallback }: EpFlags): Pick<SessionOptions, 'ep' | 'cpuFallback'> {
  return ep === 'cpu' ? {} : { ep, ...(cpuFallback ? {} : { cpuFallback }) };
}
