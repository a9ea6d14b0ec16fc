/** Walks along values: through the ops that keep the elements, and back to whatever feeds a value. */
import type { Node, Value } from '../../../src/graph.js';
import { type DType, isFloat } from '../../../src/types.js';
import { dtypeOf, rankOf, sizeAt } from '../../../src/value-type.js';
import { scalarOf } from '../../grad/scalars.js';
import { payloadOf } from '../payload.js';
import { traceConstant } from '../weight.js';

/** Ops whose output 0 holds the elements of input 0, perhaps in another type or layout. */
const SAME_ELEMENTS = new Set(['Identity', 'Cast', 'Dropout']);
const SAME_ORDER = new Set([...SAME_ELEMENTS, 'Reshape', 'Flatten', 'Squeeze', 'Unsqueeze']);
const LAYOUT = new Set([...SAME_ORDER, 'Transpose']);

/** To integer codes and back: the elements, rounded. */
const QUANTIZERS = new Set(['QuantizeLinear', 'DynamicQuantizeLinear', 'com.microsoft.QuantizeLinear']);
const DEQUANTIZERS = new Set(['DequantizeLinear', 'com.microsoft.DequantizeLinear']);
/** Products of codes: integers that stand for reals, as codes do. */
const INTEGER_PRODUCTS = new Set(['MatMulInteger', 'ConvInteger']);
/** Codes are of these types, and neither ids nor sizes are. */
export const CODES: ReadonlySet<DType> = new Set<DType>([
  'int8',
  'uint8',
  'int16',
  'uint16',
  'int4',
  'uint4',
]);

/** Which ops a walk passes. `elements`: same shape; `order`: same row-major order; `layout`: any order. */
export type Through = 'elements' | 'order' | 'layout';

const OPS: Readonly<Record<Through, ReadonlySet<string>>> = {
  elements: SAME_ELEMENTS,
  order: SAME_ORDER,
  layout: LAYOUT,
};

/** The value that `value` is a copy of, rounding to codes and back aside. */
export function origin(value: Value, through: Through = 'elements'): Value {
  let at = value;
  for (
    let node = at.producer;
    node !== undefined && passes(node, through) && node.output(0) === at;
    node = at.producer
  )
    at = node.input(0);
  return at;
}

/** Whether `node` hands on the elements of its input 0. */
export function passes(node: Node, through: Through): boolean {
  return (
    OPS[through].has(node.qualifiedOp) ||
    QUANTIZERS.has(node.qualifiedOp) ||
    (DEQUANTIZERS.has(node.qualifiedOp) && payloadOf(node.input(0)) === undefined)
  );
}

/** Whether `node` makes codes of its input 0. */
export function quantizes(node: Node): boolean {
  return QUANTIZERS.has(node.qualifiedOp);
}

/** Whether a value holds floats, or integers that stand for them. A value whose type is unknown may be a float. */
export function mayBeFloat(value: Value): boolean {
  const dtype = dtypeOf(value);
  return (
    dtype === undefined ||
    isFloat(dtype) ||
    CODES.has(dtype) ||
    INTEGER_PRODUCTS.has(value.producer?.qualifiedOp ?? '')
  );
}

/** Whether the value is a constant, seen through casts and layout ops. */
export function isConstant(value: Value): boolean {
  return traceConstant(value) !== undefined;
}

/** A scalar constant, seen through casts and layout ops, perhaps stored as a code. */
export function scalarBehind(value: Value): number | undefined {
  const own = scalarOf(value);
  if (own !== undefined) return own;
  const constant = traceConstant(value);
  const number = scalarOf(constant?.value);
  const decoder = constant?.chain.find((node) => DEQUANTIZERS.has(node.qualifiedOp));
  if (number === undefined || decoder === undefined) return number;
  const [scale, zero] = [scalarOf(decoder.input(1)), decoder.inputs[2]];
  const offset = zero == null ? 0 : scalarOf(zero);
  return scale === undefined || offset === undefined ? undefined : (number - offset) * scale;
}

/** The operand of a Mul or Div that a scalar scales, and the factor; undefined for other nodes. */
export function scaling(
  node: Node,
): { readonly input: Value; readonly index: number; readonly factor: number } | undefined {
  if (node.qualifiedOp !== 'Mul' && node.qualifiedOp !== 'Div') return undefined;
  const [a, b] = [node.input(0), node.input(1)];
  const right = scalarBehind(b);
  if (right !== undefined) return { input: a, index: 0, factor: node.op === 'Div' ? 1 / right : right };
  const left = node.op === 'Mul' ? scalarBehind(a) : undefined;
  return left === undefined ? undefined : { input: b, index: 1, factor: left };
}

/** Where a value is read. */
export interface Reading {
  readonly node: Node;
  readonly index: number;
}

/**
 * The reading of `value` by `reading`'s node, moved ahead of the Reshapes and casts that flatten what a layer reads:
 * the first node that reads the features with `rank` axes.
 */
export function unflattened(reading: Reading, rank: number | undefined, features: number): Reading {
  let at = reading;
  for (;;) {
    const value = at.node.input(at.index);
    const node = value.producer;
    if (node === undefined || !passes(node, 'order')) break;
    const before = node.input(0);
    if (sizeAt(before, -1) !== features) break;
    if (rankOf(value) === rank && node.qualifiedOp !== 'Identity') break;
    at = { node, index: 0 };
  }
  return at;
}

/** Whether two values are the same one, or the same binary op over the same values: exporters write differences twice. */
export function sameComputation(a: Value, b: Value): boolean {
  const [one, other] = [origin(a), origin(b)];
  if (one === other) return true;
  const [left, right] = [one.producer, other.producer];
  if (left === undefined || right === undefined || left.qualifiedOp !== right.qualifiedOp) return false;
  if (left.attributes.size > 0 || left.inputs.length !== 2 || right.inputs.length !== 2) return false;
  return left.inputs.every((input, i) => input !== null && input === right.inputs[i]);
}
