/** Options that take one of several words. */
import { InvalidArgumentError, Option } from 'commander';
import { nearest } from '../nearest.js';

/** An option with choices: help lists them, a misspelt one is answered with the nearest. */
export function choice(flags: string, description: string, choices: readonly string[]): Option {
  return new Option(flags, description).choices(choices).argParser((text: string) => {
    if (!choices.includes(text))
      throw new InvalidArgumentError(
        `Did you mean '${nearest(text, choices, 1)[0]}'? Choices: ${choices.join(', ')}.`,
      );
    return text;
  });
}
