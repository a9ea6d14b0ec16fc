import { expect } from 'vitest';
import { type ErrorCode, PeftCompileError } from '../../src/errors.js';

/** Expects a promise (or a call) to fail with our error of this code, and its message to match. */
export async function refuses(
  attempt: Promise<unknown> | (() => unknown),
  code: ErrorCode,
  message = /./,
): Promise<void> {
  let error: unknown;
  try {
    await (typeof attempt === 'function' ? attempt() : attempt);
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(PeftCompileError);
  if (error instanceof PeftCompileError) {
    expect(error.code, error.message).toBe(code);
    expect(error.message).toMatch(message);
  }
}
