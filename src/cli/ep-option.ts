/** The options that choose where graphs run, and how. */
import type { Command } from 'commander';
import { PROVIDERS } from '../../runtime/ep/index.js';
import type { SessionOptions } from '../../runtime/session.js';
import { choice } from './choice.js';
import { defined } from './defined.js';
import { count } from './options.js';

export interface EpFlags {
  readonly ep: NonNullable<SessionOptions['ep']>;
  /** False with `--no-cpu-fallback`. */
  readonly cpuFallback: boolean;
}

const GROUP = 'Where it runs:';

export function addEpOptions(command: Command): Command {
  return command
    .optionsGroup(GROUP)
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

export interface SessionFlags extends EpFlags {
  readonly threads?: number;
  readonly lowMemory?: boolean;
}

/** `addEpOptions`, and what ONNX Runtime may use of the machine. */
export function addSessionOptions(command: Command): Command {
  return addEpOptions(
    command
      .optionsGroup(GROUP)
      .option('--threads <n>', 'threads of ONNX Runtime', count)
      .option(
        '--low-memory',
        'trade speed for memory: use the weights as they lie in the file, without a repacked copy',
      ),
  );
}

export function sessionOptions(flags: SessionFlags): SessionOptions {
  const { threads, lowMemory } = flags;
  return defined({ threads, ...epOptions(flags), ...(lowMemory === true ? { prepack: false } : {}) });
}
