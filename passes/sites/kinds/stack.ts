/** Stored tensors as the methods of a stack left them. */
import type { Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { Stack, StoredValuesOf } from './kind.js';

/** Nothing wired yet. */
export const EMPTY_STACK: Stack = { current: new Map(), inner: new Set(), folds: [] };

/**
 * The tensors by slot, with the effect of earlier methods that act on activations folded in: what a later method sees
 * as the weight of the site. All are built when one is read.
 */
export function effective(
  op: Ops,
  { folds }: Stack,
  base: Readonly<Record<string, () => Value>>,
): Readonly<Record<string, () => Value>> {
  if (folds.length === 0) return base;
  let known: StoredValuesOf | undefined;
  const all = (): StoredValuesOf => {
    known ??= folds.reduce<StoredValuesOf>(
      (stored, fold) => fold(op, stored),
      Object.fromEntries(Object.entries(base).map(([slot, get]) => [slot, get()])),
    );
    return known;
  };
  return Object.fromEntries(Object.keys(base).map((slot) => [slot, () => all()[slot] as Value]));
}
