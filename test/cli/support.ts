/** Runs the command line: in this process where nothing else is asked, or as a child on the built package. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { vi } from 'vitest';
import { run } from '../../src/cli/program.js';
import { repositoryRoot } from '../helpers/fixtures.js';

export interface Outcome {
  readonly status: number | null;
  readonly signal?: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** One command line in this process. */
export async function cli(...args: string[]): Promise<Outcome> {
  const written = { stdout: '', stderr: '' };
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((chunk) => {
      written[name] += String(chunk);
      return true;
    }),
  );
  try {
    const status = await run(['node', 'peft-compile', ...args]);
    return { status, ...written };
  } finally {
    for (const spy of spies) spy.mockRestore();
    process.exitCode = undefined;
  }
}

/** The single JSON object that a command printed with `--json`. */
export async function cliJson(...args: string[]): Promise<{ status: number | null; json: JsonReport }> {
  const { status, stdout } = await cli(...args, '--json');
  return { status, json: JSON.parse(stdout) as JsonReport };
}

// biome-ignore lint/suspicious/noExplicitAny: reports of all verbs, checked by the assertions that read them
export type JsonReport = Record<string, any>;

export const MAIN = join(repositoryRoot, 'dist', 'src', 'cli', 'main.js');

export interface Running {
  readonly child: ChildProcess;
  readonly stderr: () => string;
  readonly done: Promise<Outcome>;
}

/** The environment without what the test runner's own surroundings say of colours (CI services set some of it). */
const { NO_COLOR: _no, FORCE_COLOR: _force, CI: _ci, ...plainEnvironment } = process.env;

/** One command line as a process of its own; `shell` is a bash line in front of it. */
export function start(
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; shell?: string } = {},
): Running {
  const command = [process.execPath, MAIN, ...args];
  const env = { ...plainEnvironment, ...options.env };
  const child =
    options.shell === undefined
      ? spawn(command[0] ?? '', command.slice(1), { env })
      : spawn('bash', ['-c', `${options.shell}; exec "$@"`, 'bash', ...command], { env });
  const written = { stdout: '', stderr: '' };
  child.stdout?.on('data', (chunk) => {
    written.stdout += String(chunk);
  });
  child.stderr?.on('data', (chunk) => {
    written.stderr += String(chunk);
  });
  const done = new Promise<Outcome>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal, ...written }));
  });
  return { child, stderr: () => written.stderr, done };
}

/** A folder that is gone when `work` is done. */
export function temporaryFolder(): { path: (...parts: string[]) => string; remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'cli-'));
  return {
    path: (...parts) => join(folder, ...parts),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** Writes records as JSON Lines. */
export function writeLines(path: string, records: readonly object[]): string {
  writeFileSync(path, records.map((record) => `${JSON.stringify(record)}\n`).join(''));
  return path;
}

/** Token sequences that a tiny model can learn: each counts up from a start; as a class, start mod 3. */
export function countingRecords(count: number, label: 'class' | 'tokens'): object[] {
  return Array.from({ length: count }, (_, i) => {
    const start = 5 + ((i * 7) % 40);
    const input_ids = Array.from({ length: 6 + (i % 5) }, (_, t) => start + t);
    return { input_ids, labels: label === 'class' ? start % 3 : input_ids };
  });
}
