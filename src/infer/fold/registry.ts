/** Partial evaluators by operator of ai.onnx. */
import { arithmetic } from './arithmetic.js';
import type { Fold, Folds } from './fold.js';
import { structure } from './structure.js';

const FOLDS: Folds = { ...arithmetic, ...structure };

export function foldOf(op: string): Fold | undefined {
  return Object.hasOwn(FOLDS, op) ? FOLDS[op] : undefined;
}
