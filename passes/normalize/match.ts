/** Small vocabulary for recognising patterns of elementwise math, whatever order exporters write the factors in. */
import type { Node, Value } from '../../src/graph.js';
import { scalarOf } from '../grad/scalars.js';

/** The node that computes a value, when it is this standard op. */
export function madeBy(value: Value | null | undefined, op: string): Node | undefined {
  const node = value?.producer;
  return node !== undefined && node.domain === '' && node.op === op ? node : undefined;
}

/** For `op(a, c)` with a scalar constant on either side (of a commutative op): the other operand and the number. */
export function withScalar(
  value: Value | null | undefined,
  op: string,
): { value: Value; scalar: number } | undefined {
  const node = madeBy(value, op);
  if (node === undefined) return undefined;
  const [a, b] = [node.input(0), node.input(1)];
  const right = scalarOf(b);
  if (right !== undefined) return { value: a, scalar: right };
  const left = scalarOf(a);
  return left === undefined ? undefined : { value: b, scalar: left };
}

/** The two operands of a binary op, each with the other. */
export function operandPairs(node: Node): [Value, Value][] {
  const [a, b] = [node.input(0), node.input(1)];
  return [
    [a, b],
    [b, a],
  ];
}

export interface Product {
  readonly constant: number;
  /** Exponents of the factors that are no constants. */
  readonly factors: ReadonlyMap<Value, number>;
}

/** A tree of Mul, Div by a number, and whole powers as one product. */
export function productOf(value: Value): Product {
  let constant = 1;
  const factors = new Map<Value, number>();
  const visit = (v: Value, times: number) => {
    const number = scalarOf(v);
    if (number !== undefined) {
      constant *= number ** times;
      return;
    }
    const product = madeBy(v, 'Mul');
    const quotient = madeBy(v, 'Div');
    const power = madeBy(v, 'Pow');
    const divisor = quotient && scalarOf(quotient.input(1));
    const exponent = power && scalarOf(power.input(1));
    if (product !== undefined) {
      visit(product.input(0), times);
      visit(product.input(1), times);
    } else if (quotient !== undefined && divisor !== undefined) {
      constant /= divisor ** times;
      visit(quotient.input(0), times);
    } else if (power !== undefined && exponent !== undefined && Number.isInteger(exponent) && exponent > 0) {
      visit(power.input(0), times * exponent);
    } else factors.set(v, (factors.get(v) ?? 0) + times);
  };
  visit(value, 1);
  return { constant, factors };
}

/** Equal up to the rounding of a number that was once stored in float16. */
export function near(a: number, b: number): boolean {
  return Math.abs(a - b) <= 1e-3 * Math.abs(b);
}
