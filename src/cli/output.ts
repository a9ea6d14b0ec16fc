/** What verbs print: data on stdout, everything else on stderr. */
import Table from 'cli-table3';
import pc from 'picocolors';

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

/** Prints text on stdout. */
export function print(text = ''): void {
  process.stdout.write(`${text}\n`);
}

/** Prints a diagnostic on stderr. */
export function warn(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** A borderless table; numbers are right-aligned where `right` names their columns. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  right: readonly number[] = [],
): string {
  const chars = Object.fromEntries(
    [
      'top',
      'top-mid',
      'top-left',
      'top-right',
      'bottom',
      'bottom-mid',
      'bottom-left',
      'bottom-right',
      'left',
      'left-mid',
      'mid',
      'mid-mid',
      'right',
      'right-mid',
      'middle',
    ].map((name) => [name, name === 'middle' ? '  ' : '']),
  );
  const view = new Table({
    head: head.map((text) => pc.bold(text)),
    chars,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    colAligns: head.map((_, index) => (right.includes(index) ? 'right' : 'left')),
  });
  for (const row of rows) view.push([...row]);
  return view.toString();
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
