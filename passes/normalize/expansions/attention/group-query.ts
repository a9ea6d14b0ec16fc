/**
 * com.microsoft GroupQueryAttention: causal attention over a cache, with few heads of keys and values and rotary
 * positions. Row b has seen seqlens_k[b] + 1 tokens; those that are not among the queries lie in the cache.
 */
import { floatAttribute, intAttribute } from '../../../../src/attribute.js';
import type { Node, Value } from '../../../../src/graph.js';
import type { Builder } from '../../../../src/ops/builder.js';
import { Shapes } from '../../../grad/shapes.js';
import { type Expanded, isRead, optional, refuse, refuseInputs } from '../../expansion.js';
import { attend } from './attend.js';
import { joined, known, parted, split } from './heads.js';
import { causal, bias as masked, range } from './masks.js';

const QUANTISED = 'scales of a quantised cache';
const NORMED = 'weights that normalise queries and keys inside';

interface Cache {
  readonly keys: Value | undefined;
  readonly values: Value | undefined;
  /** Tokens of a row that the cache holds, int64[batch]; undefined where it holds none. */
  readonly lengths: Value | undefined;
}

export function groupQueryAttention(b: Builder, node: Node): Expanded {
  refuseInputs(node, { 12: QUANTISED, 13: QUANTISED, 14: NORMED, 15: NORMED });
  if (isRead(node, 3)) refuse('its scores are read');
  const shapes = new Shapes(b.model, b);
  const heads = intAttribute(node, 'num_heads', 0);
  const keyHeads = intAttribute(node, 'kv_num_heads', heads);
  const cache = cacheOf(shapes, node);
  const { q: query, k: key, v: value } = projections(shapes, node, heads, keyHeads);
  const rotate = intAttribute(node, 'do_rotary', 0) === 1 ? rotation(shapes, node, cache, query) : undefined;
  const rotated = (part: Value, count: number): Value => split(shapes, rotate?.(part, count) ?? part, count);
  const [q, newK, newV] = [rotated(query, heads), rotated(key, keyHeads), split(shapes, value, keyHeads)];
  const place = placing(shapes, node, cache, newK);
  const [k, v] = [place(cache.keys, newK), place(cache.values, newV)];

  const window = intAttribute(node, 'local_window_size', -1);
  const past = cache.lengths === undefined ? 0 : { rows: cache.lengths };
  const order = {
    queries: shapes.size(q, 2),
    keys: shapes.size(k, 2),
    past,
    ...(window > 0 ? { window } : {}),
  };
  const added = [masked(shapes, causal(shapes, order), shapes.dtype(q))];
  const extra = optional(node, 10);
  if (extra !== undefined) added.push(extra);
  const smooth = intAttribute(node, 'smooth_softmax', 0) === 1 ? 0 : undefined;
  const y = attend(
    shapes,
    { q, k, v },
    {
      scale: floatAttribute(node, 'scale', 0) || undefined,
      softcap: floatAttribute(node, 'softcap', 0),
      biases: added,
      sink: optional(node, 11) ?? smooth,
    },
  );
  return [joined(shapes, y), k, v, null];
}

function projections(
  shapes: Shapes,
  node: Node,
  heads: number,
  keyHeads: number,
): { q: Value; k: Value; v: Value } {
  const [query, key, value] = [node.input(0), optional(node, 1), optional(node, 2)];
  if (key !== undefined && value !== undefined) return { q: query, k: key, v: value };
  const width = known(shapes, query, 2, 'the size of its heads') / (heads + 2 * keyHeads);
  if (!Number.isInteger(width)) refuse('its projections are not packed as its heads say');
  const [q, k, v] = parted(shapes, query, [heads * width, keyHeads * width, keyHeads * width], 2);
  if (q === undefined || k === undefined || v === undefined) return refuse('it has no keys or values');
  return { q, k, v };
}

function cacheOf(shapes: Shapes, node: Node): Cache {
  const { op } = shapes.b;
  const [keys, values] = [optional(node, 3), optional(node, 4)];
  if (keys === undefined || values === undefined || shapes.dim(keys, 2) === 0)
    return { keys: undefined, values: undefined, lengths: undefined };
  if (intAttribute(node, 'sliding_window_cache', 0) === 1)
    refuse('its cache holds a window of the past (sliding_window_cache), and the past is not empty');
  // A first prompt is no longer than its sequence, whatever the buffer holds.
  const seen = op.Cast(op.Reshape(node.input(5), shapes.b.ints([-1])), { to: 'int64' });
  const queries = shapes.size(node.input(0), 1);
  const own = typeof queries === 'number' ? shapes.b.scalar(queries, 'int64') : queries;
  return { keys, values, lengths: op.Max([op.Sub(op.Add(seen, 1), own), shapes.b.scalar(0, 'int64')]) };
}

/** Rotates [batch, tokens, heads·width] by the position of each token. */
function rotation(
  shapes: Shapes,
  node: Node,
  cache: Cache,
  query: Value,
): (part: Value, heads: number) => Value {
  const { b } = shapes;
  const [cos, sin] = [node.input(7), node.input(8)];
  const given = optional(node, 9);
  const positions = given ?? positionsOf(shapes, cache, query);
  const interleaved = intAttribute(node, 'rotary_interleaved', 0);
  const turned = 2 * known(shapes, cos, 1, 'the size of its angles');
  return (part, heads) => {
    const width = known(shapes, part, 2, 'the size of its heads') / heads;
    const partial = turned < width ? { num_heads: heads, rotary_embedding_dim: turned } : {};
    return b.microsoft.RotaryEmbedding(part, positions, cos, sin, { interleaved, ...partial });
  };
}

/** A first position for all rows, int64[1], or int64[batch, tokens]. */
function positionsOf(shapes: Shapes, { lengths }: Cache, query: Value): Value {
  const { b } = shapes;
  if (lengths === undefined) return b.ints([0]);
  return b.op.Add(b.op.Unsqueeze(lengths, [1]), range(shapes, shapes.size(query, 1)));
}

/**
 * Puts new keys (or values) behind those of a row that the cache holds: place t is t of the cache, or t - length of the
 * new ones. [batch, heads, max(cache, all), width].
 */
function placing(
  shapes: Shapes,
  node: Node,
  { keys, lengths }: Cache,
  example: Value,
): (past: Value | undefined, value: Value) => Value {
  const { b } = shapes;
  const { op } = b;
  if (keys === undefined || lengths === undefined) return (_, value) => value;
  const buffer = shapes.size(keys, 2);
  const size = typeof buffer === 'number' ? b.ints([buffer]) : buffer;
  const all = op.Cast(op.Reshape(node.input(6), b.ints([1])), { to: 'int64' });
  const count = op.Max([size, all]);
  const places = op.Unsqueeze(range(shapes, count), [0]);
  const held = op.Unsqueeze(lengths, [1]);
  const last = op.Sub(op.Add(size, shapes.vector([shapes.size(example, 2)])), 1);
  const index = op.Where(op.Less(places, held), places, op.Min([op.Add(op.Sub(places, held), size), last]));
  return (past, value) => {
    if (past === undefined) return value;
    const [batch = 1, heads = 1, , width = 1] = shapes.sizes(value);
    const shape = op.Concat([shapes.vector([batch, heads]), count, shapes.vector([width])], { axis: 0 });
    return op.GatherElements(
      op.Concat([past, value], { axis: 2 }),
      op.Expand(op.Unsqueeze(index, [1, 3]), shape),
      {
        axis: 2,
      },
    );
  };
}
