/** Options that belong together in help, and are refused where they would mean nothing. */
import type { Command, Option } from 'commander';
import { fail } from '../errors.js';

export interface OptionGroup<Flags> {
  /** Flags without which these mean nothing: `--target adapted`. */
  readonly needs: string;
  readonly fits: (flags: Flags) => boolean;
  readonly add: (command: Command) => Command;
}

/**
 * Adds the options of groups under a heading each. The result throws E_USAGE for an option of the command line whose group
 * does not fit the others, with `where` they are decided.
 */
export function addOptionGroups<Flags>(
  command: Command,
  groups: readonly OptionGroup<Flags>[],
): (flags: Flags, where: string) => void {
  const owners = groups.map(({ needs, fits, add }) => {
    const before = command.options.length;
    add(command.optionsGroup(`With ${needs}:`));
    return { needs, fits, options: command.options.slice(before) };
  });
  const given = (option: Option) => command.getOptionValueSource(option.attributeName()) === 'cli';
  return (flags, where) => {
    for (const { options, needs, fits } of owners) {
      const option = fits(flags) ? undefined : options.find(given);
      if (option !== undefined)
        fail('E_USAGE', {
          message: `${option.long} goes with ${needs}`,
          where,
          remedy: `Leave it away, or give ${needs}`,
        });
    }
  };
}
