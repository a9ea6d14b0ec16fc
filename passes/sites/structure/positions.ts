/**
 * Where positions of tokens enter: lookups of a table by consecutive ids, and the angles of rotary embeddings. One site
 * per reader. Tables that an exporter looked up or computed while exporting have no positions left, and no site.
 */
import type { Node, Value } from '../../../src/graph.js';
import { constantOf } from '../../../src/infer/index.js';
import { decodeNumbers } from '../../../src/literals.js';
import { byteSize, countOf } from '../../../src/types.js';
import { dtypeOf } from '../../../src/value-type.js';
import { payloadOf } from '../payload.js';
import { traceConstant } from '../weight.js';
import { CODES, isConstant, origin, passes, type Reading, scaling } from './trace.js';

/** A reading of positions, and whether it looks up a table (absolute) or turns them into angles. */
export interface Positions extends Reading {
  readonly form: 'absolute' | 'rotary';
}

/** Rotary embedding as one op: the input that holds the positions. */
const ROTARY: Readonly<Record<string, number>> = { RotaryEmbedding: 3, 'com.microsoft.RotaryEmbedding': 1 };

const LOOKUPS: ReadonlySet<string> = new Set(['Gather', 'com.microsoft.GatherBlockQuantized']);

/** Constants with more bytes than this are not looked into. */
const LIMIT = 1 << 20;

/** The readings of positions that `node` makes. */
export function detectPositions(node: Node): Positions[] {
  const rotary = ROTARY[node.qualifiedOp];
  if (rotary !== undefined && node.inputs[rotary] != null) return [{ node, index: rotary, form: 'rotary' }];
  if (LOOKUPS.has(node.qualifiedOp) && isTable(node.input(0)) && isPositional(node.input(1)))
    return [{ node, index: 1, form: 'absolute' }];
  if (node.qualifiedOp === 'Cos' || node.qualifiedOp === 'Sin') {
    const angles = anglesBehind(node.input(0));
    return angles === undefined ? [] : [{ ...angles, form: 'rotary' }];
  }
  return [];
}

function isTable(value: Value): boolean {
  const constant = traceConstant(value);
  return constant?.dims.length === 2 && (constant.dtype.includes('float') || CODES.has(constant.dtype));
}

/** The product of frequencies and positions that angles are made of. */
function anglesBehind(value: Value): Reading | undefined {
  let at = value;
  for (let node = at.producer; node !== undefined; node = at.producer) {
    const scaled = scaling(node);
    if (scaled !== undefined) at = scaled.input;
    else if (passes(node, 'layout') || node.qualifiedOp === 'Concat') at = node.input(0);
    else return node.qualifiedOp === 'MatMul' || node.qualifiedOp === 'Mul' ? positionsOf(node) : undefined;
  }
  return undefined;
}

/** The operand that holds positions: the one that is computed from ids, or the consecutive one of two constants. */
function positionsOf(node: Node): Reading | undefined {
  const operands = [node.input(0), node.input(1)];
  const found = [0, 1].filter((index) => isPositional(operands[index] as Value));
  const [index] = found;
  const other = operands[1 - (index ?? 0)];
  if (found.length !== 1 || index === undefined || other === undefined) return undefined;
  return isFrequencies(other) ? { node, index } : undefined;
}

/** Frequencies: constants, perhaps spread over the batch. */
function isFrequencies(value: Value): boolean {
  const at = origin(value, 'layout');
  if (isConstant(at) || constantOf(at) !== undefined) return true;
  const node = at.producer;
  return node?.qualifiedOp === 'Expand' && isFrequencies(node.input(0));
}

/** Ops through which ids stay positions: which of their inputs hold ids. */
const THROUGH: Readonly<Record<string, readonly number[]>> = {
  Slice: [0],
  Expand: [0],
  Tile: [0],
  Gather: [0],
  Add: [0, 1],
  Sub: [0],
  // Positions of padding are zeroed (RoBERTa) or replaced.
  Mul: [0, 1],
  Where: [1, 2],
  Clip: [0],
  Max: [0, 1],
};

/** Whether a value counts tokens: a range, a running sum, a consecutive constant, or an input that is called so. */
export function isPositional(value: Value, depth = 16): boolean {
  if (depth === 0 || dtypeOf(value) === 'bool') return false;
  const node = value.producer;
  if (node === undefined || node.qualifiedOp === 'Constant')
    return payloadOf(value) === undefined ? POSITION_INPUT.test(value.name ?? '') : isConsecutive(value);
  if (node.qualifiedOp === 'Range' || node.qualifiedOp === 'CumSum') return true;
  if (passes(node, 'layout')) return isPositional(node.input(0), depth - 1);
  return (THROUGH[node.qualifiedOp] ?? []).some((index) => {
    const input = node.inputs[index];
    return input !== null && input !== undefined && isPositional(input, depth - 1);
  });
}

/** Names under which models take positions. */
export const POSITION_INPUT = /(^|[._/])pos(ition)?_?ids?$|^positions?$/i;

/** Rows of whole numbers that go up by one. */
function isConsecutive(value: Value): boolean {
  const tensor = payloadOf(value);
  if (tensor === undefined) return false;
  const length = tensor.dims.at(-1) === 1 ? (tensor.dims.at(-2) ?? 0) : (tensor.dims.at(-1) ?? 0);
  const count = countOf(tensor.dims);
  if (length < 2 || count % length !== 0 || !/^(int|float)(32|64)$/.test(tensor.dtype)) return false;
  if (byteSize(tensor.dtype, count) > LIMIT) return false;
  const numbers = Array.from(decodeNumbers(tensor), Number);
  return numbers.every((number, i) => i % length === 0 || number === (numbers[i - 1] ?? 0) + 1);
}
