/**
 * Gradients of small patterns, taken at the node that closes them: the whole derivative goes to x, and the branch that
 * the pattern swallows gets none. They are exact rewritings of what the rules of the parts would give, in fewer passes,
 * and local: other readers of the branch are differentiated as ever.
 */
import { intAttribute, intsAttribute } from '../../src/attribute.js';
import type { Node, Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import type { Contribution } from './rule.js';
import { scalarOf } from './scalars.js';

function madeBy(value: Value | null | undefined, op: string): Node | undefined {
  const node = value?.producer;
  return node !== undefined && node.domain === '' && node.op === op ? node : undefined;
}

/** Contributions of a Mul that closes a pattern, by input position; undefined when it closes none. */
export function compositeOf(c: GradientContext): readonly Contribution[] | undefined {
  const [a, b] = [c.input(0), c.input(1)];
  for (const [x, gate, at] of [
    [a, b, 0],
    [b, a, 1],
  ] as const) {
    const whole = silu(c, x, gate) ?? rootMeanSquare(c, x, gate);
    if (whole !== undefined) return at === 0 ? [whole, null] : [null, whole];
  }
  return undefined;
}

/** y = x·σ(x): y' = σ + y·(1 - σ) */
function silu(c: GradientContext, x: Value, gate: Value): Contribution | undefined {
  if (madeBy(gate, 'Sigmoid')?.input(0) !== x) return undefined;
  const { op } = c;
  return () => op.Mul(c.dy, op.Add(gate, op.Mul(c.y, op.Sub(1, gate))));
}

/** y = x·r with r = 1/√(mean x² + ε): dx = r·(dy - y·mean(dy·y)) */
function rootMeanSquare(c: GradientContext, x: Value, inverse: Value): Contribution | undefined {
  const axes = meanSquareAxes(x, inverse);
  if (axes === undefined) return undefined;
  const { op } = c;
  return () => {
    const mean = op.ReduceMean(op.Mul(c.dy, c.y), axes(c), { keepdims: 1 });
    return op.Mul(op.Sub(c.dy, op.Mul(c.y, mean)), inverse);
  };
}

type Axes = (c: GradientContext) => number[];

/** The axes of the mean when `inverse` is 1/√(mean x² + ε) of x. */
function meanSquareAxes(x: Value, inverse: Value): Axes | undefined {
  const root = rootOf(inverse);
  const sum = madeBy(root, 'Add');
  if (sum === undefined) return undefined;
  const mean = [0, 1]
    .filter((i) => scalarOf(sum.input(1 - i)) !== undefined)
    .map((i) => madeBy(sum.input(i), 'ReduceMean'))
    .find((node) => node !== undefined);
  if (mean === undefined || !isSquareOf(mean.input(0), x)) return undefined;
  if (intAttribute(mean, 'keepdims', 1) === 0) return undefined;
  const axes = intsAttribute(mean, 'axes');
  if (axes !== undefined) return () => axes;
  const input = mean.inputs[1];
  if (input === null || input === undefined) return undefined;
  return (c) => c.known(input) ?? c.unsupported('the axes of its mean are computed at run time');
}

/** v of 1/√v, as Reciprocal(Sqrt v), 1/Sqrt(v) or v^(-1/2). */
function rootOf(inverse: Value): Value | undefined {
  const reciprocal = madeBy(inverse, 'Reciprocal');
  const quotient = madeBy(inverse, 'Div');
  const power = madeBy(inverse, 'Pow');
  if (reciprocal !== undefined) return madeBy(reciprocal.input(0), 'Sqrt')?.input(0);
  if (quotient !== undefined && scalarOf(quotient.input(0)) === 1)
    return madeBy(quotient.input(1), 'Sqrt')?.input(0);
  return power !== undefined && scalarOf(power.input(1)) === -0.5 ? power.input(0) : undefined;
}

function isSquareOf(value: Value, x: Value): boolean {
  const power = madeBy(value, 'Pow');
  if (power !== undefined) return power.input(0) === x && scalarOf(power.input(1)) === 2;
  const product = madeBy(value, 'Mul');
  return product !== undefined && product.input(0) === x && product.input(1) === x;
}
