/**
 * Lookups in a quantised table: `com.microsoft.GatherBlockQuantized`, which gives floats, and `Gather` of integers with
 * a `DequantizeLinear` behind it. A float branch can run beside them.
 */
import { intAttribute } from '../../../src/attribute.js';
import type { Node, Value } from '../../../src/graph.js';
import { isFloat } from '../../../src/types.js';
import { dtypeOf, shapeOf } from '../../../src/value-type.js';
import { onlyUse } from '../bias.js';
import type { Detector, EmbeddingDraft } from '../draft.js';
import { graphOf } from '../linear.js';
import { payloadOf } from '../payload.js';

function draft(node: Node, y: Value, axis: number): readonly EmbeddingDraft[] {
  const table = node.input(0);
  const ids = node.input(1);
  const [vocab, , ...more] = payloadOf(table)?.dims ?? [];
  const dim = shapeOf(y)?.at(-1);
  const dtype = dtypeOf(y);
  const matrix = vocab !== undefined && more.length === 0 && typeof dim === 'number';
  if (!matrix || axis !== 0 || payloadOf(ids)?.dims.length === 0) return [];
  if (dtype === undefined || !isFloat(dtype)) return [];
  const weight = {
    value: table,
    transposed: false,
    scale: 1,
    consumed: table,
    consumedTransposed: false,
    input: 0,
    chain: [],
    storage: 'packed',
  } as const;
  return [{ kind: 'embedding', node, graph: graphOf(node), dtype, ids, y, weight, vocab, dim }];
}

/** Tables of integers with a scale for all rows; `gather.ts` finds those of floats. */
export function integerTable(node: Node): readonly EmbeddingDraft[] {
  const dtype = payloadOf(node.input(0))?.dtype;
  if (dtype !== 'int8' && dtype !== 'uint8') return [];
  const use = onlyUse(node.output(0));
  const reader = use?.kind === 'node' && use.index === 0 ? use.node : undefined;
  return reader?.op === 'DequantizeLinear'
    ? draft(node, reader.output(0), intAttribute(node, 'axis', 0))
    : [];
}

export const quantizedGather: Detector = {
  ops: ['com.microsoft.GatherBlockQuantized'],
  detect: (node) => draft(node, node.output(0), intAttribute(node, 'gather_axis', 0)),
};
