/** `com.microsoft.MatMulNBits`: codes [N, blocks, bytes], scales [N, blocks], zero points [N, padded bytes] or floats. */
import { intAttribute } from '../../../src/attribute.js';
import type { Node } from '../../../src/graph.js';
import { isFloat } from '../../../src/types.js';
import { payloadOf } from '../../sites/payload.js';
import type { CodePacking, QuantizedMatrix, QuantizedProduct, Refusal, ZeroPoints } from '../matrix.js';

const BITS: readonly number[] = [2, 4, 8];

export function matMulNBits(node: Node): QuantizedProduct | undefined {
  const inDim = intAttribute(node, 'K', 0);
  const outDim = intAttribute(node, 'N', 0);
  const constant = payloadOf(node.input(1)) !== undefined && payloadOf(node.input(2)) !== undefined;
  if (!constant || inDim === 0 || outDim === 0) return undefined;
  return {
    node,
    x: node.input(0),
    y: node.output(0),
    ...(node.inputs[5] == null ? {} : { bias: 5 }),
    inDim,
    outDim,
    transposed: true,
    input: 1,
    weight: refused(node) ?? matrix(node, inDim, outDim),
  };
}

function refused(node: Node): Refusal | undefined {
  const bits = intAttribute(node, 'bits', 4);
  if (!BITS.includes(bits))
    return {
      message: `The weight has ${bits} bits, a packing that is not known here`,
      remedy: 'Quantise the model to 2, 4 or 8 bits',
    };
  if (intAttribute(node, 'weight_prepacked', 0) !== 0)
    return {
      message: 'The weight is prepacked in the order of one execution provider (weight_prepacked)',
      remedy: 'Export the model without prepacking',
    };
  if (node.inputs[4] != null)
    return {
      message: 'The rows of the weight are reordered (g_idx)',
      remedy: 'Quantise without activation order, or keep the adapter as a branch',
    };
  return undefined;
}

function matrix(node: Node, inDim: number, outDim: number): QuantizedMatrix {
  const size = intAttribute(node, 'block_size', 32);
  const bits = intAttribute(node, 'bits', 4) as CodePacking['bits'];
  const blocks = Math.ceil(inDim / size);
  const packing: CodePacking = { bits, signed: false, highFirst: false };
  const zero = node.inputs[3];
  const integer = zero != null && !isFloat(payloadOf(zero)?.dtype ?? 'uint8');
  const perByte = 8 / bits;
  const zeroPoints: ZeroPoints | undefined =
    zero == null
      ? undefined
      : integer
        ? { value: zero, packing, perRow: blocks, stride: Math.ceil(blocks / perByte) * perByte }
        : { value: zero, perRow: blocks, stride: blocks };
  return {
    label: `${bits} bits in blocks of ${size}`,
    rows: outDim,
    columns: inDim,
    transposed: true,
    packing,
    stride: blocks * size,
    codes: node.input(1),
    scales: node.input(2),
    groups: outDim * blocks,
    group: (row, column) => row * blocks + Math.floor(column / size),
    ...(zeroPoints === undefined ? {} : { zeroPoints }),
    defaultZero: 2 ** (bits - 1),
  };
}
