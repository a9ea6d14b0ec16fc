/** Initial values that come from the base model's own weights. Passes only describe them; `runtime/derive` computes. */
import type { Value } from '../../../src/graph.js';
import type { Random } from '../../../src/initializer.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { StoredValues } from '../../sites/views.js';

/** A matrix or vector on the host, row-major. */
export interface HostArray {
  readonly dims: readonly number[];
  readonly data: Float64Array;
}

/**
 * What no op expresses: factorisations, selections. The result fills the parameter's shape, row-major. `arrays` are those
 * of the method's survey at the site.
 */
export type HostTransform = (
  input: HostArray,
  arrays: Readonly<Record<string, BigInt64Array>>,
) => Float64Array | BigInt64Array;

/** A value computed when the method is inserted. */
export interface DerivedInit {
  readonly kind: 'derived';
  /** Formula over the stored tensors of the site, as `fold` sees them; `random` is the parameter's seeded stream. */
  of(op: Ops, stored: StoredValues, random: Random): Value;
  /** Turns what the formula gives into the initial value, on the host. */
  readonly then?: HostTransform;
}

/** The formula's value itself. */
export function derived(of: DerivedInit['of'], then?: HostTransform): DerivedInit {
  return then === undefined ? { kind: 'derived', of } : { kind: 'derived', of, then };
}

/** The stored tensor of a slot: a parameter of the base that becomes trainable. */
export function baseValue(slot: 'w' | 'b'): DerivedInit {
  return derived((_op, stored) => stored[slot] as Value);
}

export function isDerived(init: object): init is DerivedInit {
  return (init as { kind?: unknown }).kind === 'derived';
}
