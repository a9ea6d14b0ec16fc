/** `com.microsoft.MatMulBnb4`: 4-bit codes of a table, flat over [N, K], one scale per block of the flat order. */
import { intAttribute } from '../../../src/attribute.js';
import type { Node } from '../../../src/graph.js';
import { isFloat } from '../../../src/types.js';
import { payloadOf } from '../../sites/payload.js';
import { type QuantizedMatrix, type QuantizedProduct, type Refusal, TABLES } from '../matrix.js';

const TYPES = ['fp4', 'nf4'] as const;

export function matMulBnb4(node: Node): QuantizedProduct | undefined {
  const inDim = intAttribute(node, 'K', 0);
  const outDim = intAttribute(node, 'N', 0);
  const constant = payloadOf(node.input(1)) !== undefined && payloadOf(node.input(2)) !== undefined;
  if (!constant || inDim === 0 || outDim === 0) return undefined;
  const weight = matrix(node, inDim, outDim);
  return { node, x: node.input(0), y: node.output(0), inDim, outDim, transposed: true, input: 1, weight };
}

function matrix(node: Node, inDim: number, outDim: number): QuantizedMatrix | Refusal {
  const type = TYPES[intAttribute(node, 'quant_type', 1)];
  if (type === undefined)
    return {
      message: `The weight has the 4-bit type ${intAttribute(node, 'quant_type', 1)}, which is not known here`,
      remedy: 'Quantise the model to NF4 or FP4',
    };
  if (intAttribute(node, 'transB', 1) !== 1)
    return {
      message: 'The weight is stored [in, out] (transB=0)',
      remedy: 'Quantise the model with the weight stored [out, in]',
    };
  if (!isFloat(payloadOf(node.input(2))?.dtype ?? 'undefined'))
    return {
      message: 'The scales of the weight are themselves quantised',
      remedy: 'Quantise without double quantisation',
    };
  const size = intAttribute(node, 'block_size', 64);
  return {
    label: `${type.toUpperCase()} in blocks of ${size}`,
    rows: outDim,
    columns: inDim,
    transposed: true,
    packing: { bits: 4, signed: false, highFirst: true },
    stride: inDim,
    codes: node.input(1),
    scales: node.input(2),
    groups: Math.ceil((inDim * outDim) / size),
    group: (row, column) => Math.floor((row * inDim + column) / size),
    table: TABLES[type],
    defaultZero: 0,
  };
}
