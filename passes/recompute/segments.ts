/**
 * Where a forward pass can be cut: places between two nodes that one activation crosses alone. In a residual network
 * these lie between its sublayers. Values that accompany the whole of a stretch (an encoder's output in the decoder)
 * do not count there.
 */
import type { Node, Value } from '../../src/graph.js';
import { valuesRead } from '../../src/order.js';

/** Nodes of the forward pass between two cuts, in graph order, and the activation that enters. */
export interface Segment {
  readonly nodes: readonly Node[];
  /** Undefined for the first segment. */
  readonly entry: Value | undefined;
}

/** A value alive from behind node `from` to node `to`, both positions in the forward pass. */
interface Span {
  readonly value: Value;
  readonly from: number;
  readonly to: number;
}

/**
 * Cuts `forward` (in graph order) wherever a single activation crosses. `isActivation`: a value that depends on the
 * batch and on what is trained.
 */
export function segmentsOf(forward: readonly Node[], isActivation: (value: Value) => boolean): Segment[] {
  const cuts = cutsBetween(spansOf(forward, isActivation), 0, forward.length - 1);
  const segments: Segment[] = [];
  let start = 0;
  let entry: Value | undefined;
  for (const { after, value } of cuts) {
    segments.push({ nodes: forward.slice(start, after + 1), entry });
    start = after + 1;
    entry = value;
  }
  segments.push({ nodes: forward.slice(start), entry });
  return segments;
}

function spansOf(forward: readonly Node[], isActivation: (value: Value) => boolean): Span[] {
  const from = new Map<Value, number>();
  const to = new Map<Value, number>();
  for (const [i, node] of forward.entries()) {
    for (const value of valuesRead(node)) if (from.has(value)) to.set(value, i);
    for (const output of node.outputs) if (output !== null && isActivation(output)) from.set(output, i);
  }
  return [...to].map(([value, last]) => ({ value, from: from.get(value) ?? 0, to: last }));
}

interface Cut {
  /** Position of the last node before the cut. */
  readonly after: number;
  readonly value: Value;
}

/** Cuts behind positions in [low, high), in order. */
function cutsBetween(spans: readonly Span[], low: number, high: number): Cut[] {
  const cuts = singleCrossings(spans, low, high);
  const found: Cut[] = [];
  let start = low;
  for (const stop of [...cuts.map(({ after }) => after), high]) {
    // Long against what lies around it: something else is alive all along.
    if (stop - start > (high - low) / 2 && stop > start) {
      const half = (stop - start) / 2;
      const inside = spans.filter(({ from, to }) => from < stop && to > start);
      const short = inside.filter(({ from, to }) => Math.min(to, stop) - Math.max(from, start) <= half);
      if (short.length < inside.length) found.push(...cutsBetween(short, start, stop));
    }
    start = stop;
  }
  return [...cuts, ...found].sort((a, b) => a.after - b.after);
}

function singleCrossings(spans: readonly Span[], low: number, high: number): Cut[] {
  const length = high - low + 1;
  const count = new Int32Array(length + 1);
  // Sums of indices: where one span crosses, the sum is its index.
  const sum = new Float64Array(length + 1);
  for (const [i, { from, to }] of spans.entries()) {
    const first = Math.max(from, low) - low;
    const last = Math.min(to, high) - low;
    if (last <= first) continue;
    count[first] = (count[first] ?? 0) + 1;
    count[last] = (count[last] ?? 0) - 1;
    sum[first] = (sum[first] ?? 0) + i;
    sum[last] = (sum[last] ?? 0) - i;
  }
  const cuts: Cut[] = [];
  let crossing = 0;
  let index = 0;
  for (let i = 0; i < length - 1; i++) {
    crossing += count[i] ?? 0;
    index += sum[i] ?? 0;
    const span = spans[index];
    if (crossing === 1 && span !== undefined) cuts.push({ after: low + i, value: span.value });
  }
  return cuts;
}
