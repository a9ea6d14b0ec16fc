/** Gradients of broadcasting arithmetic. Contributions have the output's shape; the driver sums broadcast axes. */
import type { Value } from '../../src/graph.js';
import { compositeOf } from './composite.js';
import type { GradientContext } from './context.js';
import { type Contribution, defineGradient, type Gradient, type GradientRule } from './rule.js';

function broadcast(op: string, rule: GradientRule, domain = ''): Gradient {
  return defineGradient({ op, domain, broadcasts: true }, rule);
}

/** dy to every input. */
function each(scale: (c: GradientContext) => number): GradientRule {
  return (c) => c.node.inputs.map(() => () => ({ value: c.dy, scale: scale(c) }));
}

/** dy · other, where a scalar constant is put off. */
function times(c: GradientContext, other: Value): Contribution {
  const scale = c.scalar(other);
  return () => (scale === undefined ? c.op.Mul(c.dy, other) : { value: c.dy, scale });
}

/** x^(e-1) · e · dy; the usual small exponents need no Pow. */
function powerBase(c: GradientContext): ReturnType<NonNullable<Contribution>> {
  const { op, dy, x } = c;
  const exponent = c.scalar(c.input(1));
  if (exponent === 1) return dy;
  if (exponent === 2) return { value: op.Mul(dy, x), scale: 2 };
  if (exponent === 3) return { value: op.Mul(dy, op.Mul(x, x)), scale: 3 };
  if (exponent === 0.5) return { value: op.Div(dy, c.y), scale: 0.5 };
  if (exponent === -0.5) return { value: op.Mul(dy, op.Div(c.y, x)), scale: -0.5 };
  if (exponent !== undefined)
    return { value: op.Mul(dy, op.Pow(x, c.number(exponent - 1))), scale: exponent };
  const e = c.castLike(c.input(1), x);
  return op.Mul(dy, op.Mul(e, op.Pow(x, op.Sub(e, 1))));
}

/** dy · y · ln x, and 0 where x ≤ 0 (as PyTorch at x = 0). */
function powerExponent(c: GradientContext): Value {
  const { op, x } = c;
  const positive = op.Greater(x, 0);
  const log = op.Log(op.Where(positive, x, c.number(1)));
  return c.castLike(op.Mul(c.dy, op.Mul(c.y, log)), c.input(1));
}

/** dy where an input equals the extreme, shared evenly between ties. */
function extreme(c: GradientContext): readonly Contribution[] {
  if (c.node.inputs.length === 1) return [() => c.dy];
  let shared: { masks: Value[]; ties: Value } | undefined;
  const masks = () => {
    if (shared === undefined) {
      const all = c.node.inputs.map((_, i) => c.mask(c.op.Equal(c.input(i), c.y)));
      shared = { masks: all, ties: all.reduce((sum, mask) => c.op.Add(sum, mask)) };
    }
    return shared;
  };
  return c.node.inputs.map((_, i) => () => {
    const { masks: all, ties } = masks();
    return c.op.Mul(c.dy, c.op.Div(all[i] ?? c.unsupported('no such input'), ties));
  });
}

/** dy inside [min, max], 0 outside; a bound receives dy where it is the value. */
const clip: GradientRule = (c) => {
  const { op, dy, x } = c;
  const zero = c.number(0);
  const attribute = (name: string) => c.node.attributes.get(name);
  const bound = (name: 'min' | 'max', index: number) =>
    attribute(name)?.type === 'float' ? c.number(c.float(name, 0)) : c.optional(index);
  const min = bound('min', 1);
  const max = bound('max', 2);
  return [
    () => {
      let value = dy;
      if (min !== undefined) value = op.Where(op.GreaterOrEqual(x, min), value, zero);
      if (max !== undefined) value = op.Where(op.LessOrEqual(x, max), value, zero);
      return value;
    },
    () => {
      const below = op.Where(op.Less(x, min ?? zero), dy, zero);
      return max === undefined ? below : op.Where(op.LessOrEqual(min ?? zero, max), below, zero);
    },
    () => {
      const top = max ?? zero;
      return op.Where(op.Greater(min === undefined ? x : op.Max([x, min]), top), dy, zero);
    },
  ];
};

export const arithmetic: readonly Gradient[] = [
  broadcast(
    'Add',
    each(() => 1),
  ),
  broadcast('Sub', ({ dy }) => [() => dy, () => ({ value: dy, scale: -1 })]),
  broadcast(
    'Sum',
    each(() => 1),
  ),
  broadcast(
    'Mean',
    each((c) => 1 / c.node.inputs.length),
  ),
  broadcast('Mul', (c) => {
    if (c.input(0) === c.input(1)) return [() => ({ value: c.op.Mul(c.dy, c.x), scale: 2 })];
    return compositeOf(c) ?? [times(c, c.input(1)), times(c, c.input(0))];
  }),
  broadcast('Div', (c) => {
    const divisor = c.scalar(c.input(1));
    return [
      () => (divisor === undefined ? c.op.Div(c.dy, c.input(1)) : { value: c.dy, scale: 1 / divisor }),
      () => ({ value: c.op.Mul(c.dy, c.op.Div(c.y, c.input(1))), scale: -1 }),
    ];
  }),
  broadcast('Pow', (c) => [() => powerBase(c), () => powerExponent(c)]),
  broadcast('Where', (c) => {
    const zero = () => c.number(0, c.y);
    return [null, () => c.op.Where(c.x, c.dy, zero()), () => c.op.Where(c.x, zero(), c.dy)];
  }),
  broadcast('Max', extreme),
  broadcast('Min', extreme),
  broadcast('Clip', clip),
  // fmod: y = a - b·trunc(a/b); the quotient is constant almost everywhere.
  broadcast('Mod', (c) => [
    () => c.dy,
    () => {
      const quotient = c.op.Div(c.op.Sub(c.x, c.y), c.input(1));
      return { value: c.op.Mul(c.dy, quotient), scale: -1 };
    },
  ]),
  broadcast('PRelu', (c) => {
    const positive = () => c.op.GreaterOrEqual(c.x, 0);
    return [
      () => c.op.Where(positive(), c.dy, c.op.Mul(c.dy, c.input(1))),
      () => c.op.Where(positive(), c.number(0), c.op.Mul(c.dy, c.x)),
    ];
  }),
];
