/** com.microsoft Attention: query, key and value projected inside the op by one weight [in, q + k + v]. */
import { floatAttribute, intAttribute, intsAttribute } from '../../../../src/attribute.js';
import type { Node, Value } from '../../../../src/graph.js';
import type { Builder } from '../../../../src/ops/builder.js';
import { Shapes } from '../../../grad/shapes.js';
import { type Expanded, isRead, optional, refuse, refuseInputs } from '../../expansion.js';
import { attend } from './attend.js';
import { grown, joined, known, parted, split } from './heads.js';
import { causal, bias as masked, padding } from './masks.js';

export function packedAttention(b: Builder, node: Node): Expanded {
  refuseInputs(node, { 6: 'a past in a buffer that presents share' });
  if (intAttribute(node, 'do_rotary', 0) === 1) refuse('it rotates queries and keys itself (do_rotary)');
  const shapes = new Shapes(b.model, b);
  const { op } = b;
  const heads = intAttribute(node, 'num_heads', 0);
  const total = known(shapes, node.input(1), 1, 'the width of its weight');
  const sizes = intsAttribute(node, 'qkv_hidden_sizes') ?? [total / 3, total / 3, total / 3];
  const projected = op.MatMul(node.input(0), node.input(1));
  const own = optional(node, 2);
  const all = own === undefined ? projected : op.Add(projected, own);
  const [q, newK, newV] = parted(shapes, all, sizes, 2).map((part) => split(shapes, part, heads));
  if (q === undefined || newK === undefined || newV === undefined)
    return refuse('its weight has no three parts');

  // Keys and values of before, one behind the other: [2, batch, heads, past, width].
  const past = optional(node, 4);
  const before = (part: number): Value | undefined =>
    past && op.Gather(past, b.scalar(part, 'int64'), { axis: 0 });
  const isEmpty = past === undefined || shapes.dim(past, 3) === 0;
  const [k, v] = isEmpty ? [newK, newV] : [grown(shapes, before(0), newK), grown(shapes, before(1), newV)];
  const dtype = shapes.dtype(q);
  const filter = floatAttribute(node, 'mask_filter_value', -10000);
  const keys = shapes.size(k, 2);
  const added: Value[] = [];
  const mask = optional(node, 3);
  if (mask !== undefined)
    added.push(masked(shapes, padding(shapes, mask, node.input(0), keys), dtype, filter));
  if (intAttribute(node, 'unidirectional', 0) === 1) {
    const length = isEmpty ? 0 : shapes.size(past, 3);
    const order = { queries: shapes.size(q, 2), keys, past: length };
    added.push(masked(shapes, causal(shapes, order), dtype));
  }
  const extra = optional(node, 5);
  if (extra !== undefined) added.push(extra);
  const scale = floatAttribute(node, 'scale', 0) || undefined;
  const y = attend(shapes, { q, k, v }, { scale, biases: added });
  const present = isRead(node, 1)
    ? op.Concat([op.Unsqueeze(k, [0]), op.Unsqueeze(v, [0])], { axis: 0 })
    : null;
  return [joined(shapes, y), present];
}
