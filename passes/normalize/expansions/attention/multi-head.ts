/** com.microsoft MultiHeadAttention: projections apart, or side by side in five axes. */
import { floatAttribute, intAttribute } from '../../../../src/attribute.js';
import type { Node, Value } from '../../../../src/graph.js';
import type { Builder } from '../../../../src/ops/builder.js';
import { Shapes } from '../../../grad/shapes.js';
import { type Expanded, isRead, optional, refuse, refuseInputs } from '../../expansion.js';
import { attend } from './attend.js';
import { grown, joined, known, parted, split } from './heads.js';
import { causal, bias as masked, padding } from './masks.js';

interface Projections {
  /** Each [batch, tokens, heads·width], or [batch, heads, tokens, width] where `headed` says so. */
  readonly parts: readonly Value[];
  /** Keys and values of a cross attention come with their heads apart and their biases added. */
  readonly headed: boolean;
}

export function multiHeadAttention(b: Builder, node: Node): Expanded {
  refuseInputs(node, { 8: 'a past in a buffer that presents share', 9: 'an indirection of a beam search' });
  if (isRead(node, 3)) refuse('its scores are read');
  const shapes = new Shapes(b.model, b);
  const heads = intAttribute(node, 'num_heads', 0);
  const { parts, headed } = projections(shapes, node, heads);
  const biases = biasesOf(shapes, optional(node, 3), parts, headed, heads);
  const [q, newK, newV] = parts.map((part, i) => {
    if (headed && i > 0) return part;
    const own = biases[i];
    return split(shapes, own === undefined ? part : b.op.Add(part, own), heads);
  });
  if (q === undefined || newK === undefined || newV === undefined) return refuse('it has no keys or values');
  const [pastK, pastV] = [optional(node, 6), optional(node, 7)];
  const [k, v] = [grown(shapes, pastK, newK), grown(shapes, pastV, newV)];
  const dtype = shapes.dtype(q);
  const filter = floatAttribute(node, 'mask_filter_value', -10000);
  const keys = shapes.size(k, 2);
  const added: Value[] = [];
  const mask = optional(node, 4);
  if (mask !== undefined)
    added.push(masked(shapes, padding(shapes, mask, node.input(0), keys), dtype, filter));
  if (intAttribute(node, 'unidirectional', 0) === 1) {
    const past = pastK === undefined ? 0 : shapes.size(pastK, 2);
    added.push(masked(shapes, causal(shapes, { queries: shapes.size(q, 2), keys, past }), dtype));
  }
  const extra = optional(node, 5);
  if (extra !== undefined) added.push(extra);
  const scale = floatAttribute(node, 'scale', 0) || undefined;
  const y = attend(shapes, { q, k, v }, { scale, biases: added });
  return [joined(shapes, y), k, v, null];
}

function projections(shapes: Shapes, node: Node, heads: number): Projections {
  const query = node.input(0);
  const [key, value] = [optional(node, 1), optional(node, 2)];
  /** [batch, tokens, heads, count, width] as `count` of [batch, tokens, heads·width]. */
  const unpacked = (all: Value, count: number): Value[] => {
    const width = known(shapes, all, 4, 'the size of its heads');
    return parted(shapes, all, new Array<number>(count).fill(1), 3).map((part) =>
      shapes.b.op.Reshape(part, shapes.b.ints([0, 0, heads * width])),
    );
  };
  if (key === undefined) {
    if (shapes.rank(query) !== 5) refuse('it has no keys');
    return { parts: unpacked(query, 3), headed: false };
  }
  if (shapes.rank(key) === 5) return { parts: [query, ...unpacked(key, 2)], headed: false };
  if (value === undefined) return refuse('it has no values');
  return { parts: [query, key, value], headed: shapes.rank(key) === 4 };
}

/** The bias of each projection: query, key and value lie side by side in one vector. */
function biasesOf(
  shapes: Shapes,
  all: Value | undefined,
  parts: readonly Value[],
  headed: boolean,
  heads: number,
): readonly (Value | undefined)[] {
  if (all === undefined) return [];
  const widths = parts.map((part, i) =>
    headed && i > 0
      ? heads * known(shapes, part, 3, 'the size of its heads')
      : known(shapes, part, 2, 'the size of its heads'),
  );
  return parted(shapes, all, widths, 0);
}
