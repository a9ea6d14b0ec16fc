/** What a suite is: one subject of the benchmark, giving tables. */
import type { BertShape } from './models/bert.js';
import type { Table } from './table.js';
import type { Json } from './task.js';

export interface BenchContext {
  /** Threads inside an operator, on both sides of every comparison. */
  readonly threads: number;
  /** Small models and few runs: to see that all of it works, not to read figures from. */
  readonly quick: boolean;
  /** Rounds of processes. */
  readonly rounds: number;
  /** Measured runs inside a process. */
  readonly runs: number;
  /** Python with torch and peft, where there is one. */
  readonly python: string | undefined;
  /** Also print where the time of a step goes. */
  readonly profile: boolean;
  /** Folder for models and results; removed at the end. */
  readonly folder: string;
  /** Progress, for people. */
  readonly log: (line: string) => void;
  /** Path of a BERT classifier as a file, written once per run. */
  readonly bert: (shape: BertShape, externalData: 'inline' | 'file') => Promise<string>;
}

export interface SuiteResult {
  readonly tables: readonly Table[];
  /** Every single measurement behind the tables. */
  readonly raw?: Readonly<Record<string, readonly Json[]>>;
}

export interface Suite {
  readonly id: string;
  readonly summary: string;
  readonly run: (context: BenchContext) => Promise<SuiteResult>;
}

/** What rows of peers say where there is no Python for them. */
export const NO_PEER =
  'Rows of torch and peft were skipped: no Python with torch, transformers, peft, onnx and onnxscript. Name one with `--python` or `PEFT_COMPILE_PYTHON`.';
