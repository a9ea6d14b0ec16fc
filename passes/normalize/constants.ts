/** Constant nodes become initializers, so that there is one kind of constant. */
import type { Attribute } from '../../src/attribute.js';
import { type Node, Value } from '../../src/graph.js';
import { encodeNumbers } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { tensorType } from '../../src/types.js';
import { definePass } from '../pass.js';

const READERS: Readonly<Record<string, (attribute: Attribute) => Tensor | undefined>> = {
  value: (a) => (a.type === 'tensor' ? a.value : undefined),
  value_float: (a) =>
    a.type === 'float' ? tensorOfBytes('float32', [], encodeNumbers('float32', [a.value])) : undefined,
  value_floats: (a) =>
    a.type === 'floats'
      ? tensorOfBytes('float32', [a.value.length], encodeNumbers('float32', a.value))
      : undefined,
  value_int: (a) =>
    a.type === 'int' ? tensorOfBytes('int64', [], encodeNumbers('int64', [a.value])) : undefined,
  value_ints: (a) =>
    a.type === 'ints' ? tensorOfBytes('int64', [a.value.length], encodeNumbers('int64', a.value)) : undefined,
};

function tensorOf(node: Node): Tensor | undefined {
  for (const [name, attribute] of node.attributes) {
    const tensor = READERS[name]?.(attribute);
    if (tensor !== undefined) return tensor;
  }
  return undefined;
}

export const constantsPass = definePass({
  name: 'constants-to-initializers',
  summary: 'turns Constant nodes of the main graph into initializers',
  *run(model: Model) {
    for (const node of model.graph.nodes()) {
      if (node.domain !== '' || node.op !== 'Constant') continue;
      const tensor = tensorOf(node);
      const from = node.outputs[0];
      if (tensor === undefined || from === null || from === undefined) continue;
      const to = new Value({
        ...(from.name === undefined ? {} : { name: from.name }),
        hint: from.hint,
        type: tensorType(tensor.dtype, tensor.dims),
        tensor,
      });
      yield {
        label: `constants-to-initializers: ${from.label}`,
        graph: model.graph,
        redirect: [{ from, to }],
        addInitializers: [to],
        remove: [node],
      };
    }
  },
});
