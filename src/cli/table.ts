/** Tables for people: borderless, cut to the terminal, whole in pipes. */
import { stripVTControlCharacters } from 'node:util';
import Table from 'cli-table3';
import pc from './colour.js';
import { terminalWidth } from './output.js';

const GAP = '  ';
/** No column is cut below this. */
const NARROWEST = 9;

const BORDERS = [
  ...['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right'],
  ...['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'],
];

/**
 * A borderless table; numbers are right-aligned where `right` names their columns. Columns without content are left out.
 * Where the terminal is narrower than the table, the widest columns lose the beginning of their texts: the end of a
 * module path is what tells it from its neighbours.
 */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  right: readonly number[] = [],
): string {
  const shown = head.map((_, i) => i).filter((i) => i === 0 || rows.some((row) => (row[i] ?? '') !== ''));
  const cells = rows.map((row) => shown.map((i) => row[i] ?? ''));
  const titles = shown.map((i) => head[i] ?? '');
  const widths = columnWidths([titles, ...cells], terminalWidth());
  const cut = (row: readonly string[]) => row.map((text, i) => shorten(text, widths[i] ?? 0));
  const view = new Table({
    head: cut(titles).map((text) => pc.bold(text)),
    chars: { ...Object.fromEntries(BORDERS.map((name) => [name, ''])), middle: GAP },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    colAligns: shown.map((i) => (right.includes(i) ? 'right' : 'left')),
  });
  for (const row of cells) view.push(cut(row));
  return view
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** Widths of the columns, the widest reduced until a line fits. */
function columnWidths(rows: readonly (readonly string[])[], available: number): number[] {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => visible(row[i] ?? '').length)));
  const total = () => widths.reduce((sum, width) => sum + width, (widths.length - 1) * GAP.length);
  while (total() > available) {
    const widest = Math.max(...widths);
    if (widest <= NARROWEST) break;
    widths[widths.indexOf(widest)] = widest - 1;
  }
  return widths;
}

/** Coloured cells are verdicts, short already. */
function shorten(text: string, width: number): string {
  const plain = visible(text);
  return plain.length <= width || plain !== text ? text : `…${text.slice(text.length - width + 1)}`;
}

function visible(text: string): string {
  return stripVTControlCharacters(text);
}
