/**
 * What the harness measured, one row per model, kept under `docs/measured/models/<suite>.json`: `docs/models.md` is made
 * of these files. Errors are stored as bounds: the next power of ten above twice what was measured. A run whose error
 * lies under the stored bound, and not far under it, leaves the row as it is.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SiteKind } from '../../passes/sites/site.js';
import { repositoryRoot } from '../helpers/fixtures.js';

/** A number that stands for 'below this'. */
export type Bound = number;

export interface ModelRow {
  readonly name: string;
  readonly folder: string;
  readonly architecture: string;
  readonly exporter: string;
  readonly opset: number;
  readonly dtype: string;
  /** Linears and tables found, and modules of torch with their exact path of all that torch has. */
  readonly found: number;
  readonly exact?: readonly [number, number];
  readonly kinds: Readonly<Partial<Record<SiteKind, number>>>;
  /** Error of the fold of LoRA, and of the second method; a reason where that does not work. */
  readonly lora?: Bound | string;
  readonly second?: Bound | string;
  /** Whether adapters in blocks, and prefixes of attentions, change the output; absent without such sites. */
  readonly blocks?: boolean;
  readonly prefixes?: boolean;
  readonly gradient?: Bound | string;
  readonly against?: 'torch' | 'finite differences';
  readonly gaps: readonly string[];
}

export function rowsPath(suite: string): string {
  return join(repositoryRoot, 'docs/measured/models', `${suite}.json`);
}

/** The smallest power of ten that is more than twice the error, from 1e-7. */
function boundOf(error: number): Bound {
  return Number(`1e${Math.max(-7, Math.ceil(Math.log10(2 * error)))}`);
}

const ERRORS = ['lora', 'second', 'gradient'] as const;

/** The text of a suite's file: bounds that still hold are kept. */
export function rowsText(suite: string, rows: readonly ModelRow[]): string {
  const path = rowsPath(suite);
  const before = existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as ModelRow[]) : [];
  const stored = new Map(before.map((row) => [row.name, row]));
  const bounded = rows.map((row) => {
    const old = stored.get(row.name);
    const bounds = ERRORS.flatMap((field) => {
      const error = row[field];
      if (typeof error !== 'number') return [];
      const known = old?.[field];
      const holds = typeof known === 'number' && error <= known && error > known / 1e3;
      return [[field, holds || error === 0 ? (known ?? boundOf(error)) : boundOf(error)]];
    });
    return { ...row, ...Object.fromEntries(bounds) };
  });
  const sorted = bounded.sort((a, b) => (a.name < b.name ? -1 : 1));
  return `[\n${sorted.map((row) => `  ${JSON.stringify(row)}`).join(',\n')}\n]\n`;
}
