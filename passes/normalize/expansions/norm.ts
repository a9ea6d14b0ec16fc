/** Skip connections and embeddings that ONNX Runtime fuses with the normalisation behind them. */
import type { Node, Value } from '../../../src/graph.js';
import type { Builder } from '../../../src/ops/builder.js';
import { defineExpansion, type Expansion } from '../expansion.js';

function optional(node: Node, index: number): Value | undefined {
  return node.inputs[index] ?? undefined;
}

function epsilon(node: Node, fallback: number): number {
  const attribute = node.attributes.get('epsilon');
  return attribute?.type === 'float' ? attribute.value : fallback;
}

function isRead(node: Node, index: number): boolean {
  return (node.outputs[index]?.uses.size ?? 0) > 0;
}

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

export const fusedNorms: readonly Expansion[] = [
  defineExpansion({
    op: 'SkipLayerNormalization',
    domain: 'com.microsoft',
    expand(b, node) {
      if (isRead(node, 1) || isRead(node, 2) || b.opset('') < 17) return undefined;
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
      if (isRead(node, 1) || isRead(node, 2)) return undefined;
      const sum = skipped(b, node, 3);
      const options = { axis: -1, epsilon: epsilon(node, 1e-12) };
      return [b.op.SimplifiedLayerNormalization(sum, node.input(2), options), null, null, sum];
    },
  }),
  defineExpansion({
    op: 'EmbedLayerNormalization',
    domain: 'com.microsoft',
    expand(b, node) {
      // The count of valid tokens (output 1) has no use in a training graph.
      if (isRead(node, 1) || b.opset('') < 17) return undefined;
      const ids = node.input(0);
      const segments = optional(node, 1);
      const table = optional(node, 4);
      let sum = b.op.Gather(node.input(2), ids);
      const places = optional(node, 8);
      const positions =
        places === undefined
          ? b.op.Slice(node.input(3), [0], b.op.Gather(b.op.Shape(ids), [1]), [0])
          : b.op.Gather(node.input(3), places);
      sum = b.op.Add(sum, positions);
      if (segments !== undefined && table !== undefined) sum = b.op.Add(sum, b.op.Gather(table, segments));
      const y = b.op.LayerNormalization(sum, node.input(5), node.input(6), {
        axis: -1,
        epsilon: epsilon(node, 1e-12),
      });
      return [y, null, sum];
    },
  }),
];
