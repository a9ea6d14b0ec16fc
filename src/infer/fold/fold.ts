/** Partial evaluation of small tensors, after the output types are known. */
import type { Call } from '../call.js';
import type { Contents } from '../contents.js';

/** Contents of each output, or undefined when nothing is known. */
export type Fold = (call: Call) => readonly (Contents | undefined)[] | undefined;

export type Folds = Readonly<Record<string, Fold>>;
