/**
 * GELU as exporters spell it out, raised to one `Gelu` node: x/2·(1 + erf(x/√2)), and
 * x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))). One pass forward instead of five to eight, and nothing but x is kept for
 * the backward pass.
 */
import type { Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { definePass } from '../pass.js';
import { madeBy, near, operandPairs, productOf, withScalar } from './match.js';
import { replaceNode } from './rewrite.js';

type Approximation = 'none' | 'tanh';

export const geluPass = definePass({
  name: 'raise-gelu',
  summary: 'recognises GELU written out with Erf or Tanh',
  *run(model: Model) {
    if (model.opset('') < 20) return;
    for (const node of model.graph.nodes()) {
      const match = matchGelu(node);
      if (match === undefined) continue;
      const { x, approximate } = match;
      yield replaceNode(model, node, 'raise-gelu', (b) => [b.op.Gelu(x, { approximate })]);
    }
  },
});

function matchGelu(node: Node): { x: Value; approximate: Approximation } | undefined {
  if (node.domain !== '' || node.op !== 'Mul') return undefined;
  const { constant, factors } = productOf(node.output());
  if (!near(constant, 0.5) || factors.size !== 2) return undefined;
  const [a, b] = [...factors.keys()];
  if (a === undefined || b === undefined || [...factors.values()].some((times) => times !== 1))
    return undefined;
  for (const [x, gate] of [
    [a, b],
    [b, a],
  ] as const) {
    const approximate = gateOf(x, gate);
    if (approximate !== undefined) return { x, approximate };
  }
  return undefined;
}

/** 1 + erf(x/√2), or 1 + tanh(…). */
function gateOf(x: Value, gate: Value): Approximation | undefined {
  const sum = withScalar(gate, 'Add');
  if (sum === undefined || !near(sum.scalar, 1)) return undefined;
  const erf = madeBy(sum.value, 'Erf');
  if (erf !== undefined) {
    const inner = productOf(erf.input(0));
    return isPower(inner.factors, x, 1) && near(inner.constant, Math.SQRT1_2) ? 'none' : undefined;
  }
  const tanh = madeBy(sum.value, 'Tanh');
  return tanh !== undefined && isCubic(tanh.input(0), x) ? 'tanh' : undefined;
}

/** √(2/π)·(x + 0.044715·x³), also as √(2/π)·x·(1 + 0.044715·x²). */
function isCubic(value: Value, x: Value): boolean {
  const { constant, factors } = productOf(value);
  if (!near(constant, Math.sqrt(2 / Math.PI))) return false;
  const factored = factors.get(x) === 1;
  const rest = [...factors.keys()].filter((factor) => factor !== x);
  const sum = rest.length === 1 ? madeBy(rest[0], 'Add') : undefined;
  if (sum === undefined || factors.size !== (factored ? 2 : 1)) return false;
  return operandPairs(sum).some(([low, high]) => {
    const top = productOf(high);
    if (!near(top.constant, 0.044715) || !isPower(top.factors, x, factored ? 2 : 3)) return false;
    const bottom = productOf(low);
    return factored
      ? bottom.factors.size === 0 && near(bottom.constant, 1)
      : near(bottom.constant, 1) && isPower(bottom.factors, x, 1);
  });
}

function isPower(factors: ReadonlyMap<Value, number>, x: Value, exponent: number): boolean {
  return factors.size === 1 && factors.get(x) === exponent;
}
