/** Keys and values of earlier steps that a decoder takes as inputs: which inputs these are, and what an empty past is. */
import { intAttribute } from '../../src/attribute.js';
import type { Graph, Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { isFloat } from '../../src/types.js';
import { shapeOf, sizeAt } from '../../src/value-type.js';
import { definePass } from '../pass.js';

/** `past_key_values.0.key` (optimum, ORT GenAI), `past_0`, `past_key_self_0` (ONNX Runtime's converters). */
const PAST = /^past(_key_values|_key|_value)?([._]|\d)/;

/** Whether a graph input holds keys or values of earlier steps. */
export function isPast(value: Value): boolean {
  const shape = shapeOf(value);
  return (
    PAST.test(value.name ?? '') &&
    value.type?.kind === 'tensor' &&
    isFloat(value.type.dtype) &&
    shape !== undefined &&
    shape.length >= 3
  );
}

/**
 * The axis along which a past grows: the one whose symbol only pasts have, of several the one before the last. Undefined
 * where the file gives it a number, or where it is that of another input (keys of an encoder's output are no past of
 * the decoder).
 */
export function pastAxis(graph: Graph, past: Value): number | undefined {
  const shape = shapeOf(past) ?? [];
  const others = new Set(
    graph.inputs.filter((input) => !isPast(input)).flatMap((input) => shapeOf(input) ?? []),
  );
  const axes = shape.flatMap((dim, axis) => (typeof dim === 'string' && !others.has(dim) ? [axis] : []));
  return axes.length === 1 ? axes[0] : axes.find((axis) => axis === shape.length - 2);
}

/** Concatenations whose operand has no elements along the axis go on without it; run it on a typed model. */
export const emptyConcatPass = definePass({
  name: 'drop-empty-operands',
  summary: 'takes operands of length 0 out of concatenations',
  *run(model: Model) {
    for (const node of model.graph.nodes()) {
      if (node.domain !== '' || node.op !== 'Concat') continue;
      const kept = node.inputs.filter((input) => sizeAt(input, axisOf(node)) !== 0);
      const [only] = kept;
      const from = node.outputs[0];
      if (kept.length !== 1 || node.inputs.length === 1 || only == null || from == null) continue;
      yield {
        label: `drop-empty-operands: ${node.label}`,
        graph: model.graph,
        redirect: [{ from, to: only }],
        remove: [node],
      };
    }
  },
});

function axisOf(node: Node): number {
  return intAttribute(node, 'axis', 0);
}
