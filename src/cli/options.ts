/** What the verbs' options share. Parsers of values throw commander's own error, which names the option. */
import { type Command, InvalidArgumentError } from 'commander';

/** Heading of the options that a verb is called with most. */
export const MAIN_GROUP = 'Options:';

/** The options of every verb that writes a result and reports on it. */
export function writing(command: Command): Command {
  return command
    .optionsGroup(MAIN_GROUP)
    .option('--force', 'overwrite the output')
    .option('--quiet', 'no report, only errors and warnings')
    .option('--json', 'print a JSON report');
}

export function integer(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('Give a whole number.');
  return value;
}

export function count(text: string): number {
  const value = integer(text);
  if (value < 1) throw new InvalidArgumentError('Give a whole number from 1.');
  return value;
}

export function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('Give a number.');
  return value;
}

/** A whole number from 0. */
export function countFromZero(text: string): number {
  const value = integer(text);
  if (value < 0) throw new InvalidArgumentError('Give a whole number from 0.');
  return value;
}

/** `batch=2,sequence=16`; collects a repeatable option into a list of cases. */
export function sizes(
  text: string,
  previous: readonly Record<string, number>[] = [],
): Record<string, number>[] {
  const entries = text.split(',').map((part) => {
    const found = /^(.+)=(\d+)$/.exec(part.trim());
    if (found === null) throw new InvalidArgumentError('Give sizes such as batch=2,sequence=16.');
    return [found[1] ?? '', count(found[2] ?? '')] as const;
  });
  return [...previous, Object.fromEntries(entries)];
}

/** `0,1,2` or `0-3,7`. */
export function indexList(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const range = /^(\d+)(?:-(\d+))?$/.exec(part.trim());
    if (range === null) throw new InvalidArgumentError('Give indices such as 0,1,2 or 0-3.');
    const first = Number(range[1]);
    const last = Number(range[2] ?? range[1]);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** Collects `key=value` pairs of a repeatable option into one record; values are JSON where they parse as such. */
export function pair(text: string, previous: Record<string, unknown> = {}): Record<string, unknown> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('Give key=value.');
  return { ...previous, [text.slice(0, at)]: jsonOrText(text.slice(at + 1)) };
}

/** Like `pair`, for numbers. */
export function numberPair(text: string, previous: Record<string, number> = {}): Record<string, number> {
  const at = text.lastIndexOf('=');
  if (at < 1) throw new InvalidArgumentError('Give pattern=number.');
  return { ...previous, [text.slice(0, at)]: number(text.slice(at + 1)) };
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/** Collects the words of a repeatable option; one may hold several, `a,b`. */
export function words(text: string, previous: readonly string[] = []): string[] {
  return [...previous, ...text.split(',').map((word) => word.trim())];
}

/** Collects numbers, of a list or of a repeated option. */
export function numbers(text: string, previous: readonly number[] = []): number[] {
  return [...previous, ...text.split(',').map(number)];
}
