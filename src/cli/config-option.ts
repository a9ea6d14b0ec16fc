/** The options that say which config file a verb reads. */
import type { Command } from 'commander';

export function addConfigOptions(command: Command): Command {
  return command
    .optionsGroup('Config file:')
    .option(
      '--config <file>',
      'config file; default: peft-compile.config.{json,yaml,js,mjs,ts} if there is one',
    )
    .option('--no-config', 'read no config file');
}
