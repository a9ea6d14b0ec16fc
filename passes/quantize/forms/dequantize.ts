/** `DequantizeLinear` of a constant, the standard operator and ONNX Runtime's own. */
import { intAttribute } from '../../../src/attribute.js';
import type { Node } from '../../../src/graph.js';
import type { QuantizedMatrix, Refusal } from '../matrix.js';
import { affineMatrix } from './affine.js';

export function dequantizeLinear(node: Node): QuantizedMatrix | Refusal | undefined {
  if (node.op !== 'DequantizeLinear') return undefined;
  return affineMatrix({
    codes: node.input(0),
    scales: node.input(1),
    zeroPoint: node.inputs[2],
    axis: intAttribute(node, 'axis', 1),
    blockSize: intAttribute(node, 'block_size', 0),
  });
}
