/**
 * How the formula of a method reads parameters that differ from row to row of the batch, so that one run serves several
 * adapters (`passes/combine`). Activations are [batch, time, features] then, whatever axes the graph has.
 */

/**
 * What a parameter of shape S is in the formula.
 * `stacked`: [batch, ...S]: an operand of a product, or whatever the formula broadcasts itself.
 * `vector`: [batch, 1, ...S], added to or multiplied with activations.
 * `table`: [adapters · rows, dim], looked up at ids that point to the rows of their adapter.
 * `common`: S; all adapters must have the same numbers.
 */
export type RowLayout = 'stacked' | 'vector' | 'table' | 'common';

export interface ByRow<P extends string, Attach> {
  /** By parameter. Parameters that are not named have no form by row, and adapters that have them are refused. */
  readonly params: Readonly<Partial<Record<P, RowLayout>>>;
  /** The formula; default: `attach`, which is right where products and broadcasts do it all. */
  readonly attach?: Attach;
}
