/**
 * A product with a weight matrix and its bias become one Gemm over [rows, K]: the bias is then part of the product
 * instead of a pass over its result, forward, and the gradient sees matrices.
 */
import type { Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { shapeOf } from '../../src/value-type.js';
import { Shapes } from '../grad/shapes.js';
import { definePass } from '../pass.js';
import { operandPairs } from './match.js';
import { replaceNode } from './rewrite.js';

interface Linear {
  readonly x: Value;
  readonly weight: Value;
  readonly bias: Value;
}

export const linearPass = definePass({
  name: 'linear-to-gemm',
  summary: 'joins a product with a weight and the addition of its bias',
  *run(model: Model) {
    for (const node of model.graph.nodes()) {
      const match = matchLinear(node);
      if (match === undefined) continue;
      const { x, weight, bias } = match;
      const y = node.output();
      yield replaceNode(model, node, 'linear-to-gemm', (b) => {
        const shapes = new Shapes(model, b);
        // Sizes that only run time knows are those of x: y goes away with the sum.
        const sizes = (dims(y) ?? []).map((dim, axis, { length }) =>
          typeof dim === 'number' || axis === length - 1 ? shapes.size(y, axis) : shapes.size(x, axis),
        );
        return [shapes.reshape(b.op.Gemm(shapes.flat2d(x), weight, bias, {}), sizes)];
      });
    }
  },
});

/** x·W + b with x of three or more axes, W a matrix of the model and b a vector as long as its columns. */
function matchLinear(node: Node): Linear | undefined {
  if (node.domain !== '' || node.op !== 'Add') return undefined;
  for (const [product, bias] of operandPairs(node)) {
    const matmul = product.producer;
    if (matmul === undefined || matmul.domain !== '' || matmul.op !== 'MatMul') continue;
    if (product.uses.size !== 1 || matmul.graph !== node.graph) continue;
    const [x, weight] = [matmul.input(0), matmul.input(1)];
    const [rank, matrix, vector] = [dims(x)?.length ?? 0, dims(weight), dims(bias)];
    const fits = matrix?.length === 2 && vector?.length === 1 && vector[0] === matrix[1];
    if (
      rank >= 3 &&
      fits &&
      typeof matrix[0] === 'number' &&
      weight.producer === undefined &&
      dims(node.output())
    )
      return { x, weight, bias };
  }
  return undefined;
}

function dims(value: Value) {
  return shapeOf(value);
}
