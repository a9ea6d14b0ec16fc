/** Skip connections and embeddings that ONNX Runtime fuses with the normalisation behind them. */
import { floatAttribute } from '../../../src/attribute.js';
import type { Node, Value } from '../../../src/graph.js';
import type { Builder } from '../../../src/ops/builder.js';
import { defineExpansion, type Expansion, isRead, optional, refuse } from '../expansion.js';

const epsilon = (node: Node, fallback: number) => floatAttribute(node, 'epsilon', fallback);

/** x + skip (+ bias) */
function skipped(b: Builder, node: Node, bias: number): Value {
  const sum = b.op.Add(node.input(0), node.input(1));
  const extra = optional(node, bias);
  return extra === undefined ? sum : b.op.Add(sum, extra);
}

/** Zeros as long as the scale, where the fused op lets the shift be left out. */
function shift(b: Builder, scale: Value, given: Value | undefined): Value {
  return given ?? b.op.Sub(scale, scale);
}

/** Mean and inverse deviation are outputs 1 and 2 of the fused ops, which no exporter reads. */
function refuseStatistics(node: Node): void {
  if (isRead(node, 1, 2)) refuse('its statistics are read');
}

export const fusedNorms: readonly Expansion[] = [
  defineExpansion({
    op: 'SkipLayerNormalization',
    domain: 'com.microsoft',
    expand(b, node) {
      refuseStatistics(node);
      const sum = skipped(b, node, 4);
      const scale = node.input(2);
      const bias = shift(b, scale, optional(node, 3));
      const y = b.op.LayerNormalization(sum, scale, bias, { axis: -1, epsilon: epsilon(node, 1e-12) });
      return [y, null, null, sum];
    },
  }),
  defineExpansion({
    op: 'SkipSimplifiedLayerNormalization',
    domain: 'com.microsoft',
    expand(b, node) {
      refuseStatistics(node);
      const sum = skipped(b, node, 3);
      const options = { axis: -1, epsilon: epsilon(node, 1e-12) };
      return [b.op.SimplifiedLayerNormalization(sum, node.input(2), options), null, null, sum];
    },
  }),
  defineExpansion({
    op: 'EmbedLayerNormalization',
    domain: 'com.microsoft',
    expand(b, node) {
      const { op } = b;
      const ids = node.input(0);
      const segments = optional(node, 1);
      const table = optional(node, 4);
      let sum = op.Gather(node.input(2), ids);
      const places = optional(node, 8);
      const positions =
        places === undefined
          ? op.Slice(node.input(3), [0], op.Gather(op.Shape(ids), [1]), [0])
          : op.Gather(node.input(3), places);
      sum = op.Add(sum, positions);
      if (segments !== undefined && table !== undefined) sum = op.Add(sum, op.Gather(table, segments));
      const y = op.LayerNormalization(sum, node.input(5), node.input(6), {
        axis: -1,
        epsilon: epsilon(node, 1e-12),
      });
      return [y, isRead(node, 1) ? counted(b, ids, optional(node, 7)) : null, sum];
    },
  }),
];

/** How many tokens of each row the mask marks with 1, int32[batch]; 0 without a mask. */
function counted(b: Builder, ids: Value, mask: Value | undefined): Value {
  const { op } = b;
  const marked = op.Equal(mask ?? op.Mul(ids, 0), 1);
  return op.ReduceSum(op.Cast(marked, { to: 'int32' }), [1], { keepdims: 0 });
}
