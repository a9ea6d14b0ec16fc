/**
 * Products of integers: `DynamicQuantizeLinear` → `MatMulInteger` → `Cast` → `Mul`, what ONNX Runtime fuses of it, and
 * `QuantizeLinear` → `QLinearMatMul` → `DequantizeLinear`. Weights are [in, out] with one scale, or one per column.
 */
import type { Node, Value } from '../../../src/graph.js';
import { onlyUse } from '../../sites/bias.js';
import { payloadOf } from '../../sites/payload.js';
import type { QuantizedProduct } from '../matrix.js';
import { affineMatrix } from './affine.js';

/** The node that alone reads `value`, if its operator is `op`. */
function onlyReader(value: Value | undefined, op: string): Node | undefined {
  const use = value === undefined ? undefined : onlyUse(value);
  return use?.kind === 'node' && use.node.qualifiedOp === op ? use.node : undefined;
}

/** The float that an integer activation was made of. */
function quantizedFrom(value: Value, ...ops: readonly string[]): Value | undefined {
  const { producer } = value;
  return producer !== undefined && ops.includes(producer.qualifiedOp) ? producer.input(0) : undefined;
}

interface Parts {
  readonly node: Node;
  readonly x: Value | undefined;
  readonly y: Value | undefined;
  readonly input: number;
  readonly scales: Value | undefined;
  readonly zeroPoint: number;
  readonly bias?: number;
}

function product({ node, x, y, input, scales, zeroPoint, bias }: Parts): QuantizedProduct | undefined {
  const codes = node.input(input);
  const [inDim, outDim, ...more] = payloadOf(codes)?.dims ?? [];
  if (x === undefined || y === undefined || scales === undefined) return undefined;
  if (inDim === undefined || outDim === undefined || more.length > 0) return undefined;
  const weight = affineMatrix({ codes, scales, zeroPoint: node.inputs[zeroPoint], axis: 1, blockSize: 0 });
  if (weight === undefined) return undefined;
  const own = bias === undefined || node.inputs[bias] == null ? {} : { bias };
  return { node, x, y, inDim, outDim, transposed: false, input, weight, ...own };
}

export function matMulInteger(node: Node): QuantizedProduct | undefined {
  const scaled = onlyReader(onlyReader(node.output(0), 'Cast')?.output(0), 'Mul');
  const factor = scaled?.inputs.find((input) => input?.producer?.op === 'Mul')?.producer;
  return product({
    node,
    x: quantizedFrom(node.input(0), 'DynamicQuantizeLinear'),
    y: scaled?.output(0),
    input: 1,
    scales: factor?.inputs.find((input) => input != null && payloadOf(input) !== undefined) ?? undefined,
    zeroPoint: 3,
  });
}

export function matMulIntegerToFloat(node: Node): QuantizedProduct | undefined {
  return product({
    node,
    x: quantizedFrom(node.input(0), 'DynamicQuantizeLinear', 'QuantizeLinear'),
    y: node.output(0),
    input: 1,
    scales: node.input(3),
    zeroPoint: 5,
    bias: 6,
  });
}

export function dynamicQuantizeMatMul(node: Node): QuantizedProduct | undefined {
  return product({
    node,
    x: node.input(0),
    y: node.output(0),
    input: 1,
    scales: node.input(2),
    zeroPoint: 3,
    bias: 4,
  });
}

export function qLinearMatMul(node: Node): QuantizedProduct | undefined {
  return product({
    node,
    x: quantizedFrom(node.input(0), 'QuantizeLinear'),
    y: onlyReader(node.output(0), 'DequantizeLinear')?.output(0),
    input: 3,
    scales: node.input(4),
    zeroPoint: 5,
  });
}
