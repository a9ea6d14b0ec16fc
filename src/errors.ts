/**
 * Errors of peft-compile. Every error says what is wrong, where, and what to do about it, under a stable code.
 * The exit status of the CLI is a property of the code, so that shared code never maps messages to numbers.
 */

/** Exit statuses of the CLI (documented in `peft-compile --help`). */
export const EXIT = {
  ok: 0,
  unexpected: 1,
  usage: 2,
  invalidInput: 3,
  noMatch: 4,
  verification: 5,
  wouldOverwrite: 6,
  unsupported: 7,
  interrupted: 130,
} as const;

const CODES = {
  /** The file is not a readable ONNX model: truncated, lying lengths, wrong wire types. */
  E_CORRUPT_MODEL: EXIT.invalidInput,
  /** External data is missing, out of bounds or points outside the model's folder. */
  E_EXTERNAL_DATA: EXIT.invalidInput,
  /** A data, adapter, tokenizer, checkpoint or config file is malformed or does not fit the model. */
  E_INVALID_DATA: EXIT.invalidInput,
  /** A file could not be read or written (missing, permission, disk full). */
  E_IO: EXIT.invalidInput,
  /** A graph invariant does not hold (a pass or a hand-made graph is wrong, or the model is ill-formed). */
  E_INVALID_GRAPH: EXIT.invalidInput,
  /** Dtypes or shapes contradict each other. */
  E_TYPE: EXIT.invalidInput,
  /** Text in ONNX syntax does not parse. */
  E_PARSE: EXIT.invalidInput,
  /** Command line or configuration is wrong. */
  E_USAGE: EXIT.usage,
  /** A target pattern, output name or key matches nothing, or is ambiguous. */
  E_NO_MATCH: EXIT.noMatch,
  /** An operator, dtype or method is not supported in this place. */
  E_UNSUPPORTED: EXIT.unsupported,
  /** There is no gradient rule for an operator on the path from a trainable to the loss. */
  E_NO_GRADIENT: EXIT.unsupported,
  /** ONNX Runtime failed while running a model: out of memory, a kernel error, a crashed worker. */
  E_RUNTIME: EXIT.unexpected,
  /** Two models differ past tolerance, or the structure proof failed. */
  E_VERIFY: EXIT.verification,
  /** Training diverged (NaN or Inf). */
  E_NON_FINITE: EXIT.verification,
  /** The target file exists and --force was not given. */
  E_EXISTS: EXIT.wouldOverwrite,
  /** The user interrupted. */
  E_INTERRUPTED: EXIT.interrupted,
} as const;

export type ErrorCode = keyof typeof CODES;

export interface ErrorDetails {
  /** What is wrong, one sentence without a trailing period. */
  readonly message: string;
  /** File, node, tensor, or site the error is about. */
  readonly where?: string;
  /** What the user can do. */
  readonly remedy?: string;
  readonly cause?: unknown;
}

/** The one error class of the project. `message` holds the sentence, the place and the remedy. */
export class PeftCompileError extends Error {
  readonly code: ErrorCode;
  readonly where: string | undefined;
  readonly remedy: string | undefined;

  constructor(code: ErrorCode, { message, where, remedy, cause }: ErrorDetails) {
    const place = where === undefined ? '' : ` (at ${where})`;
    const help = remedy === undefined ? '' : `. ${remedy}`;
    super(`${message}${place}${help}`, cause === undefined ? undefined : { cause });
    this.name = 'PeftCompileError';
    this.code = code;
    this.where = where;
    this.remedy = remedy;
  }

  get exitCode(): number {
    return CODES[this.code];
  }
}

/** Shorthand for `throw new PeftCompileError(…)` in expression position. */
export function fail(code: ErrorCode, details: ErrorDetails): never {
  throw new PeftCompileError(code, details);
}
