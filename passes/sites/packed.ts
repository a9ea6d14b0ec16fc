/** Several projections in one weight: the Split, or the Slices, that take its output apart by columns. */
import { intAttribute, intsAttribute } from '../../src/attribute.js';
import type { Node, Value } from '../../src/graph.js';
import { rankOf, sizeAt } from '../../src/value-type.js';
import { roundedCopy } from './bias.js';
import type { Part } from './draft.js';
import { constantIntegers, intsOfAttributeOrInput } from './payload.js';
import type { ColumnRange, PackedRange } from './site.js';

interface Whole {
  readonly x: Value;
  /** The output as its readers see it. */
  readonly y: Value;
  /** Whether `y` holds a bias that the output of the whole does not. */
  readonly biased: boolean;
  readonly inDim: number;
  readonly outDim: number;
  /** Whether the features of x and y are on their last axes. */
  readonly plain: boolean;
}

interface Piece {
  readonly columns: ColumnRange;
  readonly y: Value;
  /** Where `y` is the whole value. */
  readonly range?: PackedRange;
}

/**
 * The parts of a linear whose output is read by nothing but column ranges, rounded or not; undefined for ordinary linears.
 */
export function packedParts(whole: Whole): readonly Part[] | undefined {
  if (!whole.plain) return undefined;
  const biased = whole.biased ? ({ biased: true } as const) : {};
  const y = rounded(whole.y);
  const direct = pieces(y, whole.outDim);
  if (direct !== undefined) return direct.map((piece) => ({ ...piece, x: whole.x, ...biased }));
  const viewed = keptFeatures(y, whole.outDim);
  const behind = viewed === undefined ? undefined : pieces(rounded(viewed), whole.outDim);
  if (viewed === undefined || behind === undefined) return undefined;
  // y went from rows [n, out] to [batch, sequence, out]; x has to be the value before its own flattening.
  const x = unflattened(whole.x, whole.inDim, rankOf(viewed));
  return behind.map(({ columns, y, range }) => ({
    columns,
    x: x ?? whole.x,
    y: x === undefined ? undefined : y,
    ...(x === undefined || range === undefined ? {} : { range }),
    ...biased,
  }));
}

/** The value as it is after rounding to codes and back, where that is all that reads it. */
function rounded(value: Value): Value {
  return roundedCopy(value) ?? value;
}

/** The output of the Reshape that is the only reader of `value`, if it keeps the last axis. */
function keptFeatures(value: Value, features: number): Value | undefined {
  const [use] = value.uses;
  if (value.uses.size !== 1 || use?.kind !== 'node' || use.index !== 0) return undefined;
  if (use.node.qualifiedOp !== 'Reshape') return undefined;
  const output = use.node.output(0);
  return lastEntry(use.node.inputs[1]) === features || sizeAt(output, -1) === features ? output : undefined;
}

/** The last entry of a shape vector: constant, or the constant end of a Concat. */
function lastEntry(shape: Value | null | undefined): number | undefined {
  const whole = constantIntegers(shape);
  if (whole !== undefined) return whole.at(-1);
  const producer = shape?.producer;
  return producer?.qualifiedOp === 'Concat' ? lastEntry(producer.inputs.at(-1)) : undefined;
}

/** The value before the Reshape that flattened it to rows, if its last axis holds the features. */
function unflattened(x: Value, features: number, rank: number | undefined): Value | undefined {
  const producer = x.producer;
  if (producer?.qualifiedOp !== 'Reshape') return undefined;
  const before = producer.input(0);
  if (sizeAt(before, -1) !== features) return undefined;
  return rank === undefined || rankOf(before) === rank ? before : undefined;
}

/** Column ranges read from `y`, when nothing else (but Shape) reads it. */
function pieces(y: Value, outDim: number): readonly Piece[] | undefined {
  const found: Piece[] = [];
  for (const use of y.uses) {
    if (use.kind !== 'node') return undefined;
    if (use.node.qualifiedOp === 'Shape') continue;
    const some = use.index === 0 ? PIECES[use.node.qualifiedOp]?.(use.node, outDim) : undefined;
    if (some === undefined) return undefined;
    found.push(...some);
  }
  found.sort((a, b) => a.columns.start - b.columns.start);
  const overlaps = found.some((piece, i) => piece.columns.start < (found[i - 1]?.columns.end ?? 0));
  return found.length < 2 || overlaps ? undefined : found;
}

const PIECES: Readonly<Record<string, (node: Node, outDim: number) => Piece[] | undefined>> = {
  Split: splitPieces,
  Slice: slicePieces,
  'com.microsoft.GroupQueryAttention': groupedPieces,
};

/** Query, key and value of all heads side by side, which the op takes apart itself. */
function groupedPieces(node: Node, outDim: number): Piece[] | undefined {
  if (node.inputs[1] != null || node.inputs[2] != null) return undefined;
  const heads = intAttribute(node, 'num_heads', 0);
  const keyHeads = intAttribute(node, 'kv_num_heads', heads);
  const width = outDim / (heads + 2 * keyHeads);
  if (!Number.isInteger(width)) return undefined;
  const widths = [heads, keyHeads, keyHeads].map((count) => count * width);
  let start = 0;
  return widths.map((own, part) => {
    const columns = { start, end: start + own };
    start += own;
    return { columns, y: node.input(0), range: { node, index: 0, widths, part } };
  });
}

/** Whether `axis` is the last one of `value`; a positive axis is believed where the rank is unknown. */
function isLastAxis(value: Value, axis: number): boolean {
  const rank = rankOf(value);
  if (axis < 0) return axis === -1;
  return rank === undefined ? axis > 0 : axis === rank - 1;
}

function splitPieces(node: Node, outDim: number): Piece[] | undefined {
  if (!isLastAxis(node.input(0), intAttribute(node, 'axis', 0))) return undefined;
  const count = node.outputs.length;
  const equal = node.inputs[1] == null && intsAttribute(node, 'split') === undefined;
  const sizes = equal
    ? Array.from({ length: count }, () => outDim / count)
    : intsOfAttributeOrInput(node, 'split', 1);
  if (sizes === undefined || sizes.reduce((sum, size) => sum + size, 0) !== outDim) return undefined;
  const found: Piece[] = [];
  let start = 0;
  for (const [i, size] of sizes.entries()) {
    const y = node.outputs[i];
    if (y !== null && y !== undefined) found.push({ columns: { start, end: start + size }, y });
    start += size;
  }
  return found;
}

function slicePieces(node: Node, outDim: number): Piece[] | undefined {
  const starts = intsOfAttributeOrInput(node, 'starts', 1);
  const ends = intsOfAttributeOrInput(node, 'ends', 2);
  const axes = intsOfAttributeOrInput(node, 'axes', 3);
  const steps = constantIntegers(node.inputs[4]);
  if (starts?.length !== 1 || ends?.length !== 1 || axes?.length !== 1) return undefined;
  if (steps !== undefined && steps[0] !== 1) return undefined;
  if (!isLastAxis(node.input(0), axes[0] ?? 0)) return undefined;
  const at = (index: number): number => Math.max(0, Math.min(outDim, index < 0 ? index + outDim : index));
  const columns = { start: at(starts[0] ?? 0), end: at(ends[0] ?? 0) };
  return columns.end > columns.start && columns.end - columns.start < outDim
    ? [{ columns, y: node.output(0) }]
    : undefined;
}
