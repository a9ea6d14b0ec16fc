/**
 * Layer normalisation: raised from its parts where an exporter wrote it out, and given its statistics as outputs, which
 * the gradient reuses.
 */
import { intAttribute } from '../../src/attribute.js';
import type { Node, Value } from '../../src/graph.js';
import { intsOf } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { rankOf, shapeOf } from '../../src/value-type.js';
import { scalarOf } from '../grad/scalars.js';
import { definePass } from '../pass.js';
import { madeBy, operandPairs, withScalar } from './match.js';
import { replaceNode } from './rewrite.js';

interface Written {
  readonly root: Node;
  readonly x: Value;
  readonly scale: Value;
  readonly bias: Value | undefined;
  readonly epsilon: number;
}

export const layerNormPass = definePass({
  name: 'raise-layer-norm',
  summary: 'recognises layer normalisation written out as means and a division',
  *run(model: Model) {
    if (model.opset('') < 17) return;
    for (const node of model.graph.nodes()) {
      const match = matchLayerNorm(node);
      if (match === undefined) continue;
      const { x, scale, bias, epsilon } = match;
      yield replaceNode(model, match.root, 'raise-layer-norm', (b) => [
        b.op.LayerNormalization(x, scale, bias ?? null, { axis: -1, epsilon }),
      ]);
    }
  },
});

/** (x - μ)/√(mean((x - μ)²) + ε)·γ (+ β), found from its division. */
function matchLayerNorm(division: Node): Written | undefined {
  if (division.domain !== '' || division.op !== 'Div') return undefined;
  const centred = division.input(0);
  const difference = madeBy(centred, 'Sub');
  const x = difference?.input(0);
  const mean = madeBy(difference?.input(1), 'ReduceMean');
  if (x === undefined || mean === undefined || mean.input(0) !== x || !overLast(mean, x)) return undefined;
  const shifted = withScalar(madeBy(division.input(1), 'Sqrt')?.input(0), 'Add');
  const variance = madeBy(shifted?.value, 'ReduceMean');
  if (shifted === undefined || variance === undefined || !overLast(variance, x)) return undefined;
  if (!isSquare(variance.input(0), centred)) return undefined;
  const scaled = onlyUser(division.output(), 'Mul');
  const scale = scaled && vectorOperand(scaled, division.output(), x);
  if (scaled === undefined || scale === undefined) return undefined;
  const biased = onlyUser(scaled.output(), 'Add');
  const bias = biased && vectorOperand(biased, scaled.output(), x);
  return { root: bias === undefined ? scaled : (biased ?? scaled), x, scale, bias, epsilon: shifted.scalar };
}

function isSquare(value: Value, of: Value): boolean {
  const power = madeBy(value, 'Pow');
  if (power !== undefined) return power.input(0) === of && scalarOf(power.input(1)) === 2;
  const product = madeBy(value, 'Mul');
  return product !== undefined && product.input(0) === of && product.input(1) === of;
}

function overLast(node: Node, x: Value): boolean {
  const attribute = node.attributes.get('axes');
  if (intAttribute(node, 'keepdims', 1) === 0) return false;
  const input = node.inputs[1];
  const axes = attribute?.type === 'ints' ? attribute.value : input == null ? undefined : intsOf(input);
  const rank = rankOf(x);
  return axes?.length === 1 && (axes[0] === -1n || (rank !== undefined && axes[0] === BigInt(rank - 1)));
}

function onlyUser(value: Value, op: string): Node | undefined {
  if (value.uses.size !== 1) return undefined;
  const [node] = value.users;
  return node !== undefined && node.domain === '' && node.op === op ? node : undefined;
}

/** The other operand, when it is a vector as long as the last axis of x. */
function vectorOperand(node: Node, known: Value, x: Value): Value | undefined {
  const other = operandPairs(node).find(([a]) => a === known)?.[1];
  const shape = other?.type?.kind === 'tensor' ? other.type.shape : undefined;
  const last = shapeOf(x)?.at(-1);
  return shape?.length === 1 && typeof last === 'number' && shape[0] === last ? other : undefined;
}

export const layerNormStatisticsPass = definePass({
  name: 'layer-norm-statistics',
  summary: 'gives LayerNormalization its mean and inverse deviation as outputs, for the gradient to reuse',
  *run(model: Model) {
    for (const node of model.graph.nodes()) {
      if (node.domain !== '' || node.op !== 'LayerNormalization' || node.outputs.length > 1) continue;
      const attributes = Object.fromEntries(node.attributes);
      yield replaceNode(model, node, 'layer-norm-statistics', (b) => [
        b.call('LayerNormalization', node.inputs, attributes, { outputs: 3 })[0] ?? null,
      ]);
    }
  },
});
