/** Tables of figures, printed as Markdown so that they read the same in a terminal and in a document. */

export type Cell = string | number | null;

export interface Column {
  /** Field of the rows. */
  readonly key: string;
  readonly head: string;
  /** How numbers are printed; default as they are. */
  readonly format?: (value: number) => string;
}

export interface Table {
  readonly id: string;
  readonly title: string;
  readonly columns: readonly Column[];
  readonly rows: readonly Readonly<Record<string, Cell>>[];
  /** What a reader has to know, below the table. */
  readonly notes?: readonly string[];
}

export const whole = (value: number) => value.toFixed(0);
export const tenths = (value: number) => value.toFixed(1);
export const hundredths = (value: number) => value.toFixed(2);
export const scientific = (value: number) => value.toExponential(1);
export const percent = (value: number) => `${(100 * value).toFixed(0)} %`;

/** The table as Markdown; null and NaN are a dash. */
export function formatTable({ title, columns, rows, notes = [] }: Table): string {
  const cells = rows.map((row) => columns.map((column) => formatCell(row[column.key] ?? null, column)));
  const numeric = columns.map(({ key }) => rows.some((row) => typeof row[key] === 'number'));
  const widths = columns.map(({ head }, i) =>
    Math.max(3, head.length, ...cells.map((row) => row[i]?.length ?? 0)),
  );
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, i) => (numeric[i] ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0))).join(' | ')} |`;
  const rule = widths.map((width, i) => (numeric[i] ? `${'-'.repeat(width - 1)}:` : '-'.repeat(width)));
  return [
    `### ${title}`,
    '',
    line(columns.map(({ head }) => head)),
    line(rule),
    ...cells.map(line),
    ...notes.flatMap((note) => ['', note]),
    '',
  ].join('\n');
}

function formatCell(value: Cell, { format = String }: Column): string {
  if (value === null || Number.isNaN(value)) return '–';
  return typeof value === 'number' ? format(value) : value;
}
