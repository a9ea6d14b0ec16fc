/** Gradients of activation functions. */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import { defineGradient, type Gradient, type Scaled } from './rule.js';

function activation(op: string, rule: (c: GradientContext) => Value | Scaled, domain = ''): Gradient {
  return defineGradient({ op, domain }, (c) => [() => rule(c)]);
}

/** dy where the condition holds, `other` elsewhere. */
function where(c: GradientContext, condition: Value, other: Value | number): Value {
  return c.op.Where(condition, c.dy, typeof other === 'number' ? c.number(other) : other);
}

/**
 * Φ(x) + x·φ(x) with s = x/√2: (1 + erf s + (2/√π)·s·e^(-s²)) / 2. The constant goes into the exponent and the
 * halving is put off: eight passes over the tensor, and one for dy.
 */
function geluErf(c: GradientContext, x: Value): Scaled {
  const { op, dy } = c;
  const s = op.Mul(x, Math.SQRT1_2);
  const density = op.Exp(op.Sub(Math.log(2 / Math.sqrt(Math.PI)), op.Mul(s, s)));
  const slope = op.Add(op.Add(op.Erf(s), op.Mul(s, density)), 1);
  return { value: op.Mul(dy, slope), scale: 0.5 };
}

/**
 * y = x/2·(1 + t), t = tanh(k·(x + a·x³)): y' = (1 + t)/2 · (1 + (1 - t)·k·(x + 3a·x³)). With w = x²,
 * k·(x + a·x³) = x·(k + k·a·w).
 */
function geluTanh(c: GradientContext, x: Value): Scaled {
  const { op, dy } = c;
  const k = Math.sqrt(2 / Math.PI);
  const a = 0.044715;
  const w = op.Mul(x, x);
  const t = op.Tanh(op.Mul(x, op.Add(op.Mul(w, k * a), k)));
  const inner = op.Mul(op.Mul(x, op.Add(op.Mul(w, 3 * k * a), k)), op.Sub(1, t));
  return { value: op.Mul(dy, op.Mul(op.Add(t, 1), op.Add(inner, 1))), scale: 0.5 };
}

/** d/dx x·σ(αx) = σ·(1 + αx·(1 - σ)) */
function swish(c: GradientContext, alpha: number): Value {
  const { op, dy, x } = c;
  const z = alpha === 1 ? x : op.Mul(x, alpha);
  const s = op.Sigmoid(z);
  return op.Mul(dy, op.Mul(s, op.Add(op.Mul(z, op.Sub(1, s)), 1)));
}

/** Inside the linear part of a hard activation. */
function inside(c: GradientContext, x: Value, low: number, high: number): Value {
  return c.op.And(c.op.Greater(x, low), c.op.Less(x, high));
}

const SELU_ALPHA = 1.6732632423543772;
const SELU_GAMMA = 1.0507009873554805;

export const activations: readonly Gradient[] = [
  activation('Relu', (c) => where(c, c.op.Greater(c.y, 0), 0)),
  activation('LeakyRelu', (c) =>
    where(c, c.op.GreaterOrEqual(c.x, 0), c.op.Mul(c.dy, c.float('alpha', 0.01))),
  ),
  activation('ThresholdedRelu', (c) => where(c, c.op.Greater(c.x, c.float('alpha', 1)), 0)),
  // y = α(e^x - 1) for x < 0, so y' = y + α.
  activation('Elu', (c) =>
    where(c, c.op.Greater(c.x, 0), c.op.Mul(c.dy, c.op.Add(c.y, c.float('alpha', 1)))),
  ),
  activation('Selu', (c) => {
    const gamma = c.float('gamma', SELU_GAMMA);
    const edge = gamma * c.float('alpha', SELU_ALPHA);
    return c.op.Where(c.op.Greater(c.x, 0), c.op.Mul(c.dy, gamma), c.op.Mul(c.dy, c.op.Add(c.y, edge)));
  }),
  // y = α(e^(x/α) - 1) for x < 0, so y' = y/α + 1.
  activation('Celu', (c) =>
    where(c, c.op.Greater(c.x, 0), c.op.Mul(c.dy, c.op.Add(c.op.Mul(c.y, 1 / c.float('alpha', 1)), 1))),
  ),
  activation('Softplus', ({ op, dy, x }) => op.Mul(dy, op.Sigmoid(x))),
  activation('Softsign', (c) => {
    const width = c.op.Add(c.op.Abs(c.x), 1);
    return c.op.Div(c.dy, c.op.Mul(width, width));
  }),
  activation('HardSigmoid', (c) => ({
    value: where(c, inside(c, c.y, 0, 1), 0),
    scale: c.float('alpha', 0.2),
  })),
  // y = x·h(x) with h = clip(x/6 + 1/2): y' = 1 above 3, 0 below -3, x/3 + 1/2 between.
  activation('HardSwish', (c) => {
    const middle = c.op.Mul(c.dy, c.op.Add(c.op.Mul(c.x, 1 / 3), 0.5));
    const upper = where(c, c.op.GreaterOrEqual(c.x, 3), middle);
    return c.op.Where(c.op.LessOrEqual(c.x, -3), c.number(0), upper);
  }),
  // y = x·t with t = tanh(softplus x): y' = t + x·(1 - t²)·σ(x).
  activation('Mish', (c) => {
    const { op, dy, x } = c;
    const t = op.Tanh(op.Softplus(x));
    const slope = op.Mul(op.Mul(x, op.Sigmoid(x)), op.Sub(1, op.Mul(t, t)));
    return op.Mul(dy, op.Add(t, slope));
  }),
  activation('Swish', (c) => swish(c, c.float('alpha', 1))),
  activation('Gelu', (c) =>
    c.string('approximate', 'none') === 'tanh' ? geluTanh(c, c.x) : geluErf(c, c.x),
  ),
  activation('Gelu', (c) => geluErf(c, c.x), 'com.microsoft'),
  activation('QuickGelu', (c) => swish(c, c.float('alpha', 1.702)), 'com.microsoft'),
  defineGradient({ op: 'FastGelu', domain: 'com.microsoft', broadcasts: true }, (c) => biased(c, geluTanh)),
  defineGradient({ op: 'BiasGelu', domain: 'com.microsoft', broadcasts: true }, (c) => biased(c, geluErf)),
];

/** y = f(x + bias): one cotangent for both. */
function biased(c: GradientContext, slope: (c: GradientContext, x: Value) => Scaled) {
  const bias = c.optional(1);
  let shared: Scaled | undefined;
  const gradient = () => {
    shared ??= slope(c, bias === undefined ? c.x : c.op.Add(c.x, bias));
    return shared;
  };
  return [gradient, gradient];
}
