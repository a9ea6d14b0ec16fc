/** Gradients of elementwise functions of one argument. Each rule is dy · f'(x), written with y where that is cheaper. */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import { defineGradient, type Gradient, type Scaled } from './rule.js';

type Derivative = (c: GradientContext) => Value | Scaled;

function unary(op: string, rule: Derivative, spec: { domain?: string } = {}): Gradient {
  return defineGradient({ op, ...spec }, (c) => [() => rule(c)]);
}

/** Functions that are constant almost everywhere. */
function flat(op: string): Gradient {
  return defineGradient({ op }, () => [null]);
}

/** x² as one pass. */
function square(c: GradientContext, x: Value): Value {
  return c.op.Mul(x, x);
}

/** 1 where x > 0, -1 where x < 0, 0 at 0, without Sign (which WebGPU lacks). */
export function sign(c: GradientContext, x: Value): Value {
  const negative = c.op.Where(c.op.Less(x, 0), c.number(-1, x), c.number(0, x));
  return c.op.Where(c.op.Greater(x, 0), c.number(1, x), negative);
}

export const elementwise: readonly Gradient[] = [
  unary('Identity', ({ dy }) => dy),
  unary('Neg', ({ dy }) => ({ value: dy, scale: -1 })),
  unary('Abs', (c) => c.op.Mul(c.dy, sign(c, c.x))),
  unary('Exp', ({ op, dy, y }) => op.Mul(dy, y)),
  unary('Log', ({ op, dy, x }) => op.Div(dy, x)),
  unary('Sqrt', ({ op, dy, y }) => ({ value: op.Div(dy, y), scale: 0.5 })),
  unary('Reciprocal', (c) => ({ value: c.op.Mul(c.dy, square(c, c.y)), scale: -1 })),
  unary('Erf', (c) => ({
    value: c.op.Mul(c.dy, c.op.Exp(c.op.Neg(square(c, c.x)))),
    scale: 2 / Math.sqrt(Math.PI),
  })),
  unary('Sin', ({ op, dy, x }) => op.Mul(dy, op.Cos(x))),
  unary('Cos', ({ op, dy, x }) => ({ value: op.Mul(dy, op.Sin(x)), scale: -1 })),
  unary('Tan', (c) => c.op.Mul(c.dy, c.op.Add(square(c, c.y), 1))),
  unary('Asin', (c) => c.op.Div(c.dy, c.op.Sqrt(c.op.Sub(1, square(c, c.x))))),
  unary('Acos', (c) => ({ value: c.op.Div(c.dy, c.op.Sqrt(c.op.Sub(1, square(c, c.x)))), scale: -1 })),
  unary('Atan', (c) => c.op.Div(c.dy, c.op.Add(square(c, c.x), 1))),
  unary('Sinh', ({ op, dy, x }) => op.Mul(dy, op.Cosh(x))),
  unary('Cosh', ({ op, dy, x }) => op.Mul(dy, op.Sinh(x))),
  unary('Asinh', (c) => c.op.Div(c.dy, c.op.Sqrt(c.op.Add(square(c, c.x), 1)))),
  unary('Acosh', (c) => c.op.Div(c.dy, c.op.Sqrt(c.op.Sub(square(c, c.x), 1)))),
  unary('Atanh', (c) => c.op.Div(c.dy, c.op.Sub(1, square(c, c.x)))),
  unary('Tanh', (c) => c.op.Mul(c.dy, c.op.Sub(1, square(c, c.y)))),
  unary('Sigmoid', ({ op, dy, y }) => op.Mul(dy, op.Mul(y, op.Sub(1, y)))),
  flat('Floor'),
  flat('Ceil'),
  flat('Round'),
  flat('Sign'),
];
