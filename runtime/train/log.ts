/** The run's log: one JSON object per line, no wall-clock times, so that equal runs leave equal logs. */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { fail } from '../../src/errors.js';
import { atomicWrite } from '../../src/onnx/index.js';
import { reason } from '../../src/onnx/source.js';

export type LogEntry = { readonly step: number } & Readonly<Record<string, unknown>>;

export class RunLog {
  readonly path: string;
  readonly #fd: number;
  readonly #evaluated: Set<number>;

  private constructor(path: string, fd: number, kept: readonly LogEntry[]) {
    this.path = path;
    this.#fd = fd;
    this.#evaluated = new Set(kept.filter((entry) => 'eval' in entry).map((entry) => entry.step));
  }

  /** Opens a log to append to. Entries past `step` (of a killed run that is resumed) are dropped first. */
  static async open(path: string, step: number): Promise<RunLog> {
    mkdirSync(dirname(path), { recursive: true });
    const kept = existsSync(path) && step > 0 ? readLog(path).filter((entry) => entry.step <= step) : [];
    const text = kept.map((entry) => `${JSON.stringify(entry)}\n`).join('');
    await atomicWrite(path, { force: true }, async (sink) => {
      await sink.write(new TextEncoder().encode(text));
    });
    return new RunLog(path, openSync(path, 'a'), kept);
  }

  /** Appends an entry; the evaluation of a step that the log already has is not repeated. */
  write(entry: LogEntry): void {
    if ('eval' in entry) {
      if (this.#evaluated.has(entry.step)) return;
      this.#evaluated.add(entry.step);
    }
    try {
      writeSync(this.#fd, `${JSON.stringify(entry)}\n`);
    } catch (cause) {
      fail('E_IO', { message: `Cannot write the log: ${reason(cause)}`, where: this.path, cause });
    }
  }

  /** An empty log goes: a run that failed before its first step is no earlier run that is in the way of the next. */
  close(): void {
    closeSync(this.#fd);
    if (statSync(this.path, { throwIfNoEntry: false })?.size === 0) rmSync(this.path);
  }
}

/** Entries of a log; a last line that a kill cut short is left out. */
export function readLog(path: string): LogEntry[] {
  const entries: LogEntry[] = [];
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    if (line === '') continue;
    try {
      const entry: unknown = JSON.parse(line);
      if (typeof entry === 'object' && entry !== null && 'step' in entry) entries.push(entry as LogEntry);
    } catch {
      break;
    }
  }
  return entries;
}
