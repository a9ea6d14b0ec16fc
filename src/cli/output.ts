/** What verbs print: data on stdout, everything else on stderr. */

/** Version of every `--json` object; raised when a field changes its meaning. */
const JSON_SCHEMA_VERSION = 1;

/** Prints one JSON object on stdout. */
export function printJson(value: object): void {
  const text = JSON.stringify({ schemaVersion: JSON_SCHEMA_VERSION, ...value }, jsonValue, 2);
  process.stdout.write(`${text}\n`);
}

function jsonValue(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (value instanceof Map) return Object.fromEntries(value);
  if (value instanceof Set) return [...value];
  return value;
}

let quiet = false;

/** Whether reports for people are left out; errors, warnings and JSON are printed all the same. */
export function setQuiet(value: boolean): void {
  quiet = value;
}

/** Prints a line of a report on stdout, unless `--quiet` was given. */
export function print(text = ''): void {
  if (!quiet) process.stdout.write(`${text}\n`);
}

/** Prints on stdout whatever the flags say: what the verb is for, such as the text of a model. */
export function emitText(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Prints a diagnostic on stderr. */
export function warn(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Columns of the terminal that stdout is; endless for pipes and files. */
export function terminalWidth(): number {
  const { isTTY, columns } = process.stdout;
  return isTTY && columns > 0 ? columns : Number.POSITIVE_INFINITY;
}

/** `1.2 MB`: decimal units, as file managers show. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`;
}

/** `12 345`: thin groups for counts. */
export function formatCount(count: number): string {
  return count.toLocaleString('en-US');
}

export function formatPercent(share: number, digits = 2): string {
  return `${(share * 100).toFixed(digits)} %`;
}
