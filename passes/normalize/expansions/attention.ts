/** Fused attention as matrix products and a softmax: Attention of ai.onnx 23, and ONNX Runtime's forms of it. */
import type { Node, Value } from '../../../src/graph.js';
import type { Builder } from '../../../src/ops/builder.js';
import type { DType } from '../../../src/types.js';
import { Shapes, type Size } from '../../grad/shapes.js';
import { defineExpansion, type Expansion } from '../expansion.js';

interface Heads {
  /** [batch, heads, queries, width]. */
  readonly q: Value;
  /** [batch, key heads, keys, width]. */
  readonly k: Value;
  readonly v: Value;
}

interface Options {
  readonly scale: number | undefined;
  readonly causal: boolean;
  readonly softcap: number;
  /** Boolean (true: look) or additive, broadcastable to [batch, heads, queries, keys]. */
  readonly masks: readonly Value[];
}

/** Finite stand-in for -∞: a row without any key stays free of NaN. */
const LOWEST: Partial<Record<DType, number>> = { float16: -65504 };

/** softmax(scale·q·kᵀ + mask)·v, or undefined where a size it needs is not static. */
function attend(shapes: Shapes, { q, k, v }: Heads, options: Options): Value | undefined {
  const { b } = shapes;
  const { op } = b;
  const width = shapes.dim(q, 3);
  const [heads, keyHeads] = [shapes.dim(q, 1), shapes.dim(k, 1)];
  if (typeof width !== 'number' || typeof heads !== 'number' || typeof keyHeads !== 'number')
    return undefined;
  const group = heads / keyHeads;
  const dtype = shapes.dtype(q);
  const lowest = b.scalar(LOWEST[dtype] ?? -3e38, dtype);
  const scaled = op.Mul(q, options.scale ?? 1 / Math.sqrt(width));
  let scores = op.MatMul(scaled, op.Transpose(repeated(shapes, k, group), { perm: [0, 1, 3, 2] }));
  if (options.softcap > 0) scores = op.Mul(op.Tanh(op.Div(scores, options.softcap)), options.softcap);
  for (const mask of options.masks)
    scores = shapes.dtype(mask) === 'bool' ? op.Where(mask, scores, lowest) : op.Add(scores, mask);
  if (options.causal) scores = op.Where(lowerTriangle(shapes, q, k), scores, lowest);
  return op.MatMul(op.Softmax(scores, { axis: -1 }), repeated(shapes, v, group));
}

/** Every key head serves `group` neighbouring query heads. */
function repeated(shapes: Shapes, value: Value, group: number): Value {
  if (group === 1) return value;
  const { op } = shapes.b;
  const [batch = 1, heads = 1, keys = 1, width = 1] = shapes.sizes(value);
  const wide = op.Expand(op.Unsqueeze(value, [2]), shapes.vector([1, 1, group, 1, 1]));
  const total: Size = typeof heads === 'number' ? heads * group : -1;
  return op.Reshape(wide, shapes.vector([batch, total, keys, width]));
}

/** Query i looks at keys up to i. */
function lowerTriangle(shapes: Shapes, q: Value, k: Value): Value {
  const { b } = shapes;
  const upTo = (value: Value) => {
    const size = shapes.size(value, 2);
    const limit = typeof size === 'number' ? b.scalar(size, 'int64') : b.op.Squeeze(size, [0]);
    return b.op.Range(b.scalar(0, 'int64'), limit, b.scalar(1, 'int64'));
  };
  return b.op.GreaterOrEqual(b.op.Unsqueeze(upTo(q), [1]), b.op.Unsqueeze(upTo(k), [0]));
}

/** [batch, tokens, heads·width] → [batch, heads, tokens, width] */
function split(shapes: Shapes, value: Value, heads: number): Value {
  const last = shapes.dim(value, 2);
  const width: Size = typeof last === 'number' ? last / heads : -1;
  const parts = shapes.b.op.Reshape(value, shapes.b.ints([0, 0, heads, width]));
  return shapes.b.op.Transpose(parts, { perm: [0, 2, 1, 3] });
}

/** [batch, heads, tokens, width] → [batch, tokens, heads·width] */
function joined(shapes: Shapes, value: Value): Value {
  const { op } = shapes.b;
  const [heads, width] = [shapes.dim(value, 1), shapes.dim(value, 3)];
  const last = typeof heads === 'number' && typeof width === 'number' ? heads * width : -1;
  return op.Reshape(op.Transpose(value, { perm: [0, 2, 1, 3] }), shapes.b.ints([0, 0, last]));
}

function int(node: Node, name: string): number {
  const attribute = node.attributes.get(name);
  return attribute?.type === 'int' ? Number(attribute.value) : 0;
}
function float(node: Node, name: string): number | undefined {
  const attribute = node.attributes.get(name);
  return attribute?.type === 'float' ? attribute.value : undefined;
}
function given(node: Node, ...indices: number[]): boolean {
  return indices.some((index) => node.inputs[index] != null);
}
function read(node: Node, ...indices: number[]): boolean {
  return indices.some((index) => (node.outputs[index]?.uses.size ?? 0) > 0);
}

/** ai.onnx Attention without a cache. */
function standard(b: Builder, node: Node): readonly (Value | null)[] | undefined {
  if (given(node, 4, 5, 6) || read(node, 1, 2, 3)) return undefined;
  const shapes = new Shapes(b.model, b);
  const inputs = [node.input(0), node.input(1), node.input(2)] as const;
  const flat = shapes.rank(inputs[0]) === 3;
  const [q, k, v] = inputs.map((value, i) =>
    flat ? split(shapes, value, int(node, i === 0 ? 'q_num_heads' : 'kv_num_heads')) : value,
  );
  if (q === undefined || k === undefined || v === undefined) return undefined;
  const mask = node.inputs[3] ?? undefined;
  const y = attend(
    shapes,
    { q, k, v },
    {
      scale: float(node, 'scale'),
      causal: int(node, 'is_causal') === 1,
      softcap: float(node, 'softcap') ?? 0,
      masks: mask === undefined ? [] : [mask],
    },
  );
  return y && [flat ? joined(shapes, y) : y];
}

/** com.microsoft MultiHeadAttention over separate projections, without a cache or a padding mask. */
function multiHead(b: Builder, node: Node): readonly (Value | null)[] | undefined {
  if (!given(node, 1) || !given(node, 2) || given(node, 4, 6, 7, 8, 9) || read(node, 1, 2, 3))
    return undefined;
  const shapes = new Shapes(b.model, b);
  const parts = [node.input(0), node.input(1), node.input(2)];
  if (parts.some((part) => shapes.rank(part) !== 3)) return undefined;
  const bias = node.inputs[3] ?? undefined;
  const biases = bias === undefined ? undefined : b.op.Split(bias, widths(shapes, parts), { axis: 0 }, 3);
  const [q, k, v] = parts.map((part, i) => {
    const own = biases?.[i];
    return split(shapes, own === undefined ? part : b.op.Add(part, own), int(node, 'num_heads'));
  });
  if (q === undefined || k === undefined || v === undefined) return undefined;
  const extra = node.inputs[5] ?? undefined;
  const y = attend(
    shapes,
    { q, k, v },
    {
      scale: float(node, 'scale') || undefined,
      causal: int(node, 'unidirectional') === 1,
      softcap: 0,
      masks: extra === undefined ? [] : [extra],
    },
  );
  return y && [joined(shapes, y)];
}

function widths(shapes: Shapes, parts: readonly Value[]): Value {
  return shapes.vector(parts.map((part) => shapes.size(part, 2)));
}

/** com.microsoft Attention: one packed projection, an optional [batch, tokens] mask, no cache. */
function packed(b: Builder, node: Node): readonly (Value | null)[] | undefined {
  const sizes = node.attributes.get('qkv_hidden_sizes');
  if (given(node, 4, 6) || read(node, 1) || sizes !== undefined || int(node, 'do_rotary') === 1)
    return undefined;
  const shapes = new Shapes(b.model, b);
  const { op } = b;
  const mask = node.inputs[3] ?? undefined;
  if (mask !== undefined && shapes.rank(mask) !== 2) return undefined;
  const projected = op.MatMul(node.input(0), node.input(1));
  const all = given(node, 2) ? op.Add(projected, node.input(2)) : projected;
  const total = shapes.dim(node.input(1), 1);
  if (typeof total !== 'number') return undefined;
  const third = total / 3;
  const [q, k, v] = op
    .Split(all, b.ints([third, third, third]), { axis: 2 }, 3)
    .map((part) => split(shapes, part, int(node, 'num_heads')));
  if (q === undefined || k === undefined || v === undefined) return undefined;
  const masks: Value[] = [];
  if (mask !== undefined) masks.push(op.Greater(op.Unsqueeze(mask, [1, 2]), 0));
  if (given(node, 5)) masks.push(node.input(5));
  const y = attend(
    shapes,
    { q, k, v },
    {
      scale: float(node, 'scale') || undefined,
      causal: int(node, 'unidirectional') === 1,
      softcap: 0,
      masks,
    },
  );
  return y && [joined(shapes, y)];
}

export const attentions: readonly Expansion[] = [
  defineExpansion({ op: 'Attention', expand: standard }),
  defineExpansion({ op: 'Attention', domain: 'com.microsoft', expand: packed }),
  defineExpansion({ op: 'MultiHeadAttention', domain: 'com.microsoft', expand: multiHead }),
];
