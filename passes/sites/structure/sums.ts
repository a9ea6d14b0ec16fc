/** Ops that add a residual before they normalize: the values that they do not show. */
import { floatAttribute, intAttribute } from '../../../src/attribute.js';
import type { Node, Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';

interface FusedSum {
  /** Input slots of gain, offset and the bias that joins the sum. */
  readonly gain: number;
  readonly offset?: number;
  readonly bias: number;
  /** Output slot of the sum. */
  readonly sum: number;
  normalize(op: Ops, x: Value, gain: Value, offset: Value | undefined, epsilon: number): Value;
}

const SUMS: Readonly<Record<string, FusedSum>> = {
  'com.microsoft.SkipLayerNormalization': {
    gain: 2,
    offset: 3,
    bias: 4,
    sum: 3,
    normalize: (op, x, gain, offset, epsilon) =>
      op.LayerNormalization(x, gain, offset ?? null, { axis: -1, epsilon }),
  },
  'com.microsoft.SkipSimplifiedLayerNormalization': {
    gain: 2,
    bias: 3,
    sum: 3,
    normalize: (op, x, gain, _offset, epsilon) => op.RMSNormalization(x, gain, { axis: -1, epsilon }),
  },
};

/** The input of the bias that `node` adds to its sum; undefined where it adds none. */
export function sumBias(node: Node): number | undefined {
  const bias = SUMS[node.qualifiedOp]?.bias;
  return bias === undefined || node.inputs[bias] == null ? undefined : bias;
}

/** What `node` normalizes, where it adds first: its own output of the sum, or the sum built again. */
export function sumOf(op: Ops, node: Node): Value | undefined {
  const fused = SUMS[node.qualifiedOp];
  if (fused === undefined) return embeddingSum(op, node);
  const shown = node.outputs[fused.sum];
  if (shown !== null && shown !== undefined) return shown;
  const bias = node.inputs[fused.bias];
  const sum = op.Add(node.input(0), node.input(1));
  return bias === null || bias === undefined ? sum : op.Add(sum, bias);
}

/** The sum of the rows that EmbedLayerNormalization looks up: its own output of it, or built again. */
function embeddingSum(op: Ops, node: Node): Value | undefined {
  if (node.qualifiedOp !== 'com.microsoft.EmbedLayerNormalization') return undefined;
  const shown = node.outputs[2];
  if (shown !== null && shown !== undefined) return shown;
  const [ids, segments, words, places, kinds] = node.inputs;
  if (ids == null || words == null || places == null) return undefined;
  const positions = node.inputs[8];
  const length = op.Gather(op.Shape(ids), [1]);
  const placed = positions == null ? op.Slice(places, [0], length, [0]) : op.Gather(places, positions);
  const sum = op.Add(op.Gather(words, ids), placed);
  return segments == null || kinds == null ? sum : op.Add(sum, op.Gather(kinds, segments));
}

/**
 * The normalization of `node` on another value; undefined for ops that are copied as they stand. ONNX Runtime's own
 * optimisations put LayerNormalization into models of an opset that has none: there it is written out.
 */
export function normalizeLike(op: Ops, node: Node, x: Value): Value | undefined {
  if (node.qualifiedOp === 'LayerNormalization')
    return op.LayerNormalization(x, node.input(1), node.inputs[2] ?? null, {
      axis: intAttribute(node, 'axis', -1),
      epsilon: floatAttribute(node, 'epsilon', 1e-5),
    });
  const fused = SUMS[node.qualifiedOp];
  if (fused === undefined) return undefined;
  const offset = fused.offset === undefined ? undefined : (node.inputs[fused.offset] ?? undefined);
  // Default of both contrib ops.
  const epsilon = floatAttribute(node, 'epsilon', 1e-12);
  return fused.normalize(op, x, node.input(fused.gain), offset, epsilon);
}

/** Position of the sum among the outputs of an op that adds before it normalizes; undefined for other ops. */
export function sumOutput(node: Node): number | undefined {
  return SUMS[node.qualifiedOp]?.sum;
}
