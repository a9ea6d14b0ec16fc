/** The benchmark runs, its tables are well formed, and its arithmetic is right. Times are never asserted. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { inTurn, Rounds } from '../runtime/bench/compare.js';
import { formatTable } from '../runtime/bench/table.js';
import { median } from '../runtime/bench/task.js';
import { timesByOperator } from '../runtime/bench/tasks/profile.js';
import { repositoryRoot } from './helpers/fixtures.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'bench-test-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const main = join(repositoryRoot, 'dist', 'runtime', 'bench', 'main.js');

interface Report {
  readonly schemaVersion: number;
  readonly settings: { readonly quick: boolean; readonly peers: boolean };
  readonly suites: Record<
    string,
    {
      readonly tables: readonly { readonly id: string; readonly rows: readonly Record<string, unknown>[] }[];
    }
  >;
}

/** Runs the built benchmark without peers. */
function bench(...args: string[]): { stdout: string; report: Report } {
  const json = join(folder, 'report.json');
  const env = { ...process.env };
  delete env.PEFT_COMPILE_PYTHON;
  const stdout = execFileSync(
    process.execPath,
    [main, '--quick', '--work', folder, '--json', json, ...args],
    {
      env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  );
  return { stdout, report: JSON.parse(readFileSync(json, 'utf8')) as Report };
}

describe('the benchmark', () => {
  test('measures steps, compile times and agreement, and cleans up', () => {
    const { stdout, report } = bench('--suite', 'step,compile,accuracy', '--profile');
    expect(report).toMatchObject({ schemaVersion: 1, settings: { quick: true, peers: false } });
    const tables = Object.values(report.suites).flatMap((suite) => suite.tables);
    expect(tables.map(({ id }) => id)).toEqual([
      'step',
      'profile-1',
      'profile-2',
      'compile-backward',
      'compile-emit',
      'agreement',
      'fold-errors',
    ]);
    const [steps, operators] = tables;
    const rows = new Map(steps?.rows.map((row) => [row.subject, row]));
    for (const row of rows.values()) {
      expect(row.ms).toBeGreaterThan(0);
      expect(row.peakMiB).toBeGreaterThan(20);
      // No Python was named, so nothing may be compared with it.
      expect(row.overPeft).toBeNull();
    }
    expect(rows.get('forward, ONNX Runtime')?.overForward).toBe(1);
    expect([...rows.keys()].filter((name) => String(name).includes('torch'))).toEqual([]);
    expect(stdout).toContain('Rows of torch and peft were skipped');
    const shares = operators?.rows.map(({ share }) => share as number) ?? [];
    expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 6);
    expect(readdirSync(folder).filter((name) => name.startsWith('peft-compile-bench-'))).toEqual([]);
  }, 300_000);

  test('folds the large model against a copy, cold and warm', () => {
    const { report } = bench('--suite', 'large-fold');
    const { tables = [] } = report.suites['large-fold'] ?? {};
    expect(tables.map(({ id }) => id)).toEqual(['large-fold', 'large-fold-float16', 'large-fold-bfloat16']);
    const [table] = tables;
    expect(table?.rows.map(({ subject }) => subject)).toEqual([
      'copy, cold',
      'fold, cold',
      'fold into a data file of its own, cold',
      'copy, warm',
      'fold, warm',
      'fold into a data file of its own, warm',
    ]);
    for (const { rows } of tables) for (const row of rows) expect(row.ms).toBeGreaterThan(0);
    expect(table?.rows[1]?.aboveMiB).toBeGreaterThan(0);
  });

  test('refuses suites and Pythons that are not there', () => {
    expect(() => bench('--suite', 'speed')).toThrow();
    expect(() => bench('--suite', 'compile', '--python', join(folder, 'no-python'))).toThrow();
  });
});

describe('comparisons', () => {
  test('alternate, and compare what was disturbed least', async () => {
    const order: string[] = [];
    const subject = (name: string, values: readonly number[]) => ({
      name,
      measure: async () => {
        order.push(name);
        return { ms: values[order.filter((other) => other === name).length - 1] };
      },
    });
    const rounds = await inTurn([subject('a', [10, 40, 20]), subject('b', [5, 10, 10])], 3, () => {});
    expect(order).toEqual(['a', 'b', 'a', 'b', 'a', 'b']);
    expect(rounds.median('a', 'ms')).toBe(20);
    expect(rounds.best('a', 'ms')).toBe(10);
    expect(rounds.ratio('a', 'ms', 'b')).toBe(2);
    expect(rounds.spread('b', 'ms')).toBe(1);
  });

  test('leave out what was not measured', () => {
    const rounds = new Rounds();
    rounds.add('a', { ms: 1 });
    expect(rounds.median('b', 'ms')).toBeNull();
    expect(rounds.ratio('a', 'ms', 'b')).toBeNull();
    expect(rounds.spread('a', 'ms')).toBeNull();
  });

  test('take the lower middle of an even count', () => {
    expect(median([4, 1, 3, 2])).toBe(2);
    expect(median([3, 1, 2])).toBe(2);
  });
});

test('tables are Markdown with dashes for what is missing', () => {
  const text = formatTable({
    id: 't',
    title: 'Title',
    columns: [
      { key: 'name', head: 'name' },
      { key: 'value', head: 'value', format: (n) => n.toFixed(1) },
    ],
    rows: [
      { name: 'long name', value: 1.25 },
      { name: 'b', value: null },
    ],
    notes: ['Note.'],
  });
  expect(text.split('\n')).toEqual([
    '### Title',
    '',
    '| name      | value |',
    '| --------- | ----: |',
    '| long name |   1.3 |',
    '| b         |     – |',
    '',
    'Note.',
    '',
  ]);
});

test('traces are summed by operator, without the first runs', () => {
  const kernel = (op_name: string, dur: number) => ({
    cat: 'Node',
    name: `n_kernel_time`,
    dur,
    args: { op_name },
  });
  const run = { cat: 'Session', name: 'model_run', dur: 1 };
  writeFileSync(
    join(folder, 'trace_2026.json'),
    JSON.stringify([
      kernel('Gemm', 90_000),
      run,
      kernel('Gemm', 2000),
      kernel('Add', 5000),
      run,
      kernel('Gemm', 4000),
      kernel('Gemm', 2000),
      run,
    ]),
  );
  expect(timesByOperator(join(folder, 'trace'), 1)).toEqual([
    { operator: 'Gemm', ms: 4, count: 1.5 },
    { operator: 'Add', ms: 2.5, count: 0.5 },
  ]);
});
