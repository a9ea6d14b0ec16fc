/**
 * Dynamic quantisation: `DynamicQuantizeLinear(x)` → `MatMulInteger` → `Cast` → `Mul` by the scales. Between the float
 * input and the float product lies a linear whose weight is integers and whose scale is elsewhere.
 */
import type { Node, Value } from '../../../src/graph.js';
import { isFloat } from '../../../src/types.js';
import { onlyUse } from '../bias.js';
import type { Detector } from '../draft.js';
import { linearDraft } from '../linear.js';
import { payloadOf } from '../payload.js';

/** The output of the one node that reads `value`, if its operator is `op`. */
function through(value: Value | undefined, op: string): Value | undefined {
  const use = value === undefined ? undefined : onlyUse(value);
  return use?.kind === 'node' && use.node.qualifiedOp === op ? use.node.output(0) : undefined;
}

function quantizer(value: Value): Node | undefined {
  return value.producer?.qualifiedOp === 'DynamicQuantizeLinear' ? value.producer : undefined;
}

export const integerMatMul: Detector = {
  ops: ['MatMulInteger'],
  detect(node) {
    const consumed = node.input(1);
    const [inDim, outDim, ...more] = payloadOf(consumed)?.dims ?? [];
    const x = quantizer(node.input(0))?.input(0);
    const y = through(through(node.output(0), 'Cast'), 'Mul');
    if (x === undefined || y === undefined || inDim === undefined || outDim === undefined || more.length > 0)
      return [];
    const view = {
      value: consumed,
      transposed: false,
      scale: 1,
      consumed,
      consumedTransposed: false,
      input: 1,
      chain: [],
      storage: 'packed',
    } as const;
    const dtype = x.type?.kind === 'tensor' && isFloat(x.type.dtype) ? x.type.dtype : 'float32';
    return [linearDraft({ node, x, y, weight: { view, inDim, outDim, dtype, rank: 2 } })];
  },
};
