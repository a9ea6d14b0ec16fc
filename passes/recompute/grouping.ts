/** Which cuts of a forward pass to keep activations at. */

/** What one segment costs in memory. */
export interface SegmentCost {
  /** Bytes of the activation that enters, kept from the forward pass to the backward pass where a group starts here. */
  readonly entry: number;
  /** Bytes inside that the backward pass reads; alive while its group is recomputed. */
  readonly inside: number;
}

const BUDGETS = 64;

/**
 * Groups consecutive segments: the starts of the groups, first 0. With `count`, at most so many groups of about equal
 * size; otherwise the number that makes least of Σ entries + largest group, which for equal segments is their square
 * root (Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174).
 */
export function groupSegments(costs: readonly SegmentCost[], count?: number): number[] {
  const total = costs.reduce((sum, { inside }) => sum + inside, 0);
  const smallest = Math.max(0, ...costs.map(({ inside }) => inside));
  let best: { readonly starts: number[]; readonly bytes: number } | undefined;
  for (let i = 0; i <= BUDGETS; i++) {
    const budget = smallest * (total / Math.max(smallest, 1)) ** (i / BUDGETS);
    const { starts, bytes } = fill(costs, budget);
    if (count !== undefined) {
      if (starts.length <= count) return starts;
    } else if (best === undefined || bytes < best.bytes) best = { starts, bytes };
  }
  return best?.starts ?? [0];
}

/** Groups as large as the budget allows, and what they hold at most. */
function fill(costs: readonly SegmentCost[], budget: number): { starts: number[]; bytes: number } {
  const starts = [0];
  let group = 0;
  let largest = 0;
  let entries = 0;
  for (const [i, { entry, inside }] of costs.entries()) {
    if (group > 0 && group + inside > budget * (1 + 1e-9)) {
      starts.push(i);
      entries += entry;
      group = 0;
    }
    group += inside;
    largest = Math.max(largest, group);
  }
  return { starts, bytes: entries + largest };
}
