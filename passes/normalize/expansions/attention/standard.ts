/** Attention of ai.onnx, opsets 23 and 24. */
import { floatAttribute, intAttribute } from '../../../../src/attribute.js';
import type { Node, Value } from '../../../../src/graph.js';
import type { Builder } from '../../../../src/ops/builder.js';
import { dtypeOfCode } from '../../../../src/types.js';
import { Shapes } from '../../../grad/shapes.js';
import { type Expanded, isRead, optional, refuse } from '../../expansion.js';
import { attend } from './attend.js';
import { grown, joined, split } from './heads.js';
import { bias, causal, within } from './masks.js';

export function standardAttention(b: Builder, node: Node): Expanded {
  if (isRead(node, 3)) refuse('its scores are read');
  const shapes = new Shapes(b.model, b);
  const inputs = [node.input(0), node.input(1), node.input(2)] as const;
  const flat = shapes.rank(inputs[0]) === 3;
  const headed = (value: Value, attribute: string): Value => {
    if (!flat) return value;
    const heads = intAttribute(node, attribute, 0);
    return heads > 0 ? split(shapes, value, heads) : refuse(`it has no ${attribute}`);
  };
  const q = headed(inputs[0], 'q_num_heads');
  const [newK, newV] = [headed(inputs[1], 'kv_num_heads'), headed(inputs[2], 'kv_num_heads')];
  const [pastK, pastV] = [optional(node, 4), optional(node, 5)];
  const [k, v] = [grown(shapes, pastK, newK), grown(shapes, pastV, newV)];
  const dtype = shapes.dtype(q);
  const biases: Value[] = [];
  const lengths = optional(node, 6);
  const keys = k === newK ? shapes.size(newK, 2) : shapes.size(k, 2);
  if (lengths !== undefined) biases.push(bias(shapes, within(shapes, lengths, keys), dtype));
  if (intAttribute(node, 'is_causal', 0) === 1) {
    const past = pastK === undefined ? 0 : shapes.size(pastK, 2);
    biases.push(bias(shapes, causal(shapes, { queries: shapes.size(q, 2), keys, past }), dtype));
  }
  const mask = optional(node, 3);
  if (mask !== undefined) {
    const [given, wanted] = [shapes.dim(mask, shapes.rank(mask) - 1), shapes.dim(k, 2)];
    if (typeof given === 'number' && typeof wanted === 'number' && given !== wanted && given !== 1)
      refuse('its mask is shorter than its keys');
    biases.push(shapes.dtype(mask) === 'bool' ? bias(shapes, mask, dtype) : mask);
  }
  const precision = dtypeOfCode(intAttribute(node, 'softmax_precision', 0));
  const y = attend(
    shapes,
    { q, k, v },
    {
      scale: floatAttribute(node, 'scale', 0) || undefined,
      softcap: floatAttribute(node, 'softcap', 0),
      biases,
      precision: precision === 'undefined' ? undefined : precision,
    },
  );
  return [flat ? joined(shapes, y) : y, k, v, null];
}
