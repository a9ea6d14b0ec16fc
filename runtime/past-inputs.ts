/** Inputs of decoders with a past whose sizes and values depend on each other: masks, and the choice of a branch. */
import { branchWithoutPast, isSwitch } from '../passes/normalize/fixed-inputs.js';
import { isPast, pastAxis } from '../passes/normalize/pasts.js';
import type { Graph, Value } from '../src/graph.js';
import { shapeOf } from '../src/value-type.js';

const TOKENS = /(^|\.)(decoder_)?input_ids$/;
const MASK = /(^|\.)(decoder_)?attention_mask$/;

/** Symbols of the axes along which pasts of the graph grow. */
export function pastSymbols(graph: Graph): Set<string> {
  const symbols = new Set<string>();
  for (const past of graph.inputs.filter(isPast)) {
    const axis = pastAxis(graph, past);
    const dim = axis === undefined ? undefined : shapeOf(past)?.[axis];
    if (typeof dim === 'string') symbols.add(dim);
  }
  return symbols;
}

/** The sizes, with those of a mask over past and tokens as the others make them; `fallback` is the size of other symbols. */
export function relatedSizes(
  graph: Graph,
  sizes: Readonly<Record<string, number>>,
  fallback: number,
): Readonly<Record<string, number>> {
  const tokens = graph.inputs.find(({ name = '' }) => TOKENS.test(name));
  const [past] = pastSymbols(graph);
  if (tokens === undefined || past === undefined) return sizes;
  const size = (dim: number | string | null | undefined) =>
    typeof dim === 'number' ? dim : (sizes[dim ?? ''] ?? fallback);
  const [batch, length] = shapeOf(tokens) ?? [];
  const related: Record<string, number> = { ...sizes };
  for (const mask of graph.inputs.filter(({ name = '' }) => MASK.test(name))) {
    const [rows, columns] = shapeOf(mask) ?? [];
    const own = (dim: unknown) =>
      typeof dim === 'string' &&
      graph.inputs.every((other) => other === mask || !shapeOf(other)?.includes(dim));
    if (typeof rows === 'string' && own(rows)) related[rows] = size(batch);
    if (typeof columns === 'string' && own(columns)) related[columns] = size(past) + size(length);
  }
  return related;
}

/** Whether the graph has an input that chooses between a branch with a past and one without. */
export function hasSwitch(graph: Graph): boolean {
  return graph.inputs.some((input) => branchWithoutPast(input) !== undefined);
}

/** What such an input must be for pasts of these sizes; undefined for all other inputs. */
export function switchValue(
  graph: Graph,
  input: Value,
  sizes: Readonly<Record<string, number>>,
): boolean | undefined {
  const without = isSwitch(input) ? branchWithoutPast(input) : undefined;
  if (without === undefined) return undefined;
  const empty = [...pastSymbols(graph)].every((symbol) => sizes[symbol] === 0);
  return empty ? without : !without;
}
