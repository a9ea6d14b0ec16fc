/** Products that ONNX Runtime fuses with what stands behind them, and the sums of its image models. */
import type { Node, Value } from '../../../src/graph.js';
import type { AttributeInput } from '../../../src/ops/attributes.js';
import type { Builder } from '../../../src/ops/builder.js';
import { schemaOf } from '../../../src/ops/schema.js';
import { sizeAt } from '../../../src/value-type.js';
import { defineExpansion, type Expansion, optional, refuse } from '../expansion.js';

const domain = 'com.microsoft';

/** The attributes of a node that do not speak of its activation. */
function own(node: Node): Record<string, AttributeInput> {
  return Object.fromEntries([...node.attributes].filter(([name]) => !name.startsWith('activation')));
}

/** The attributes an activation gets from the fused op: `activation_alpha` is its `alpha`, and so on. */
function activated(b: Builder, node: Node, value: Value): Value {
  const attribute = node.attributes.get('activation');
  const name = attribute?.type === 'string' ? attribute.value : '';
  if (name === '') return value;
  const schema = schemaOf('', name, b.opset(''));
  if (schema === undefined) return refuse(`its activation ${name} is no operator of this opset`);
  if (name === 'Clip') {
    const [low, high] = clipBounds(node);
    return b.op.Clip(value, low, high);
  }
  const given = node.attributes.get('activation_params');
  const params = given?.type === 'floats' ? given.value : [];
  const settings: Record<string, AttributeInput> = {};
  [...schema.attributes.keys()].sort().forEach((key, i) => {
    const named = node.attributes.get(`activation_${key}`);
    const number = named?.type === 'float' ? named.value : params[i];
    if (number !== undefined) settings[key] = number;
  });
  return b.call(name, [value], settings)[0] ?? value;
}

function clipBounds(node: Node): [number, number] {
  const given = node.attributes.get('activation_params');
  const [low, high] = given?.type === 'floats' ? given.value : [];
  return low === undefined || high === undefined ? refuse('its Clip has no bounds') : [low, high];
}

export const fusedProducts: readonly Expansion[] = [
  defineExpansion({
    op: 'FusedGemm',
    domain,
    expand(b, node) {
      const [y] = b.call('Gemm', node.inputs, own(node));
      return [y === undefined ? null : activated(b, node, y)];
    },
  }),
  defineExpansion({
    op: 'FusedMatMulActivation',
    domain,
    expand(b, node) {
      const [y] = b.call('FusedMatMul', node.inputs, own(node), { domain });
      return [y === undefined ? null : activated(b, node, y)];
    },
  }),
  defineExpansion({
    op: 'FusedConv',
    domain,
    expand(b, node) {
      // A fourth input joins before the activation.
      const [y] = b.call('Conv', node.inputs.slice(0, 3), own(node));
      const sum = optional(node, 3);
      if (y === undefined) return [null];
      return [activated(b, node, sum === undefined ? y : b.op.Add(y, sum))];
    },
  }),
  defineExpansion({
    op: 'GemmFastGelu',
    domain,
    expand(b, node) {
      const y = b.op.MatMul(node.input(0), node.input(1));
      const bias = optional(node, 2);
      return [b.microsoft.FastGelu(y, bias)];
    },
  }),
  defineExpansion({
    op: 'BiasAdd',
    domain,
    expand: (b, node) => [b.op.Add(b.op.Add(node.input(0), node.input(1)), node.input(2))],
  }),
  defineExpansion({
    op: 'BiasSplitGelu',
    domain,
    expand(b, node) {
      const sum = b.op.Add(node.input(0), node.input(1));
      const half =
        (sizeAt(node.input(1), 0) ?? refuse('the length of its bias is not known before it runs')) / 2;
      const [value, gate] = b.op.Split(sum, b.ints([half, half]), { axis: -1 }, 2);
      if (value === undefined || gate === undefined) return refuse('its columns have no halves');
      return [b.op.Mul(value, b.microsoft.Gelu(gate))];
    },
  }),
];
