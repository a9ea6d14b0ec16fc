/** How several adapters of one method make one, by weight: PEFT's `add_weighted_adapter`. */

/** The update of a weight is s·left·right, and updates add up. */
export interface WeightedFactors {
  readonly by: 'factors';
  /** Roles of the factors, [in, rank] and [rank, out]. */
  readonly left: string;
  readonly right: string;
  /** Other roles that s multiplies where they are used. */
  readonly scaled?: readonly string[];
  scale(config: Readonly<Record<string, unknown>>): number;
  /** The configuration of factors of another rank whose scale is 1. */
  unscaled(config: Readonly<Record<string, unknown>>, rank: number): Readonly<Record<string, unknown>>;
}

/** Parameters themselves are mixed. */
export interface WeightedParameters {
  readonly by: 'parameters';
}

export type Weighted = WeightedFactors | WeightedParameters;
