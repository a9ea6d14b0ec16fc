/** What a pass is: a named generator of edits over a model. Run by `passes/runner.ts`. */
import type { Model } from '../src/model.js';
import type { Edit } from './edit.js';

export interface Pass {
  readonly name: string;
  /** One sentence for `--help` and logs. */
  readonly summary: string;
  /** Yields edits one by one; each is applied before the generator is resumed, so later edits see earlier ones. */
  run(model: Model): Iterable<Edit>;
}

/** Declares a pass; identity with type checking, so that user code needs no type imports. */
export function definePass(pass: Pass): Pass {
  return pass;
}
