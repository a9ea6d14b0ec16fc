/** Operators that some device has no kernel for, as formulas of operators that every device has. */
import { floatAttribute, intAttribute } from '../../src/attribute.js';
import type { Node, Value } from '../../src/graph.js';
import type { Builder } from '../../src/ops/builder.js';
import { isFloat } from '../../src/types.js';
import { dtypeOf } from '../../src/value-type.js';

function inputs(node: Node): Value[] {
  return node.inputs.filter((input) => input !== null);
}

function number(node: Node, name: string, fallback: number): number {
  return intAttribute(node, name, floatAttribute(node, name, fallback));
}

function sum(b: Builder, values: readonly Value[]): Value | undefined {
  const [first, ...rest] = values;
  return first === undefined ? undefined : rest.reduce((total, value) => b.op.Add(total, value), first);
}

const either = (b: Builder, x: Value, y: Value): Value => b.op.Not(b.op.And(b.op.Not(x), b.op.Not(y)));

/** The one output of an operator by others; undefined for forms that are not covered. */
export type Formula = (b: Builder, node: Node) => Value | undefined;

/** By operator of ai.onnx; each is used where the device says that it lacks the operator. */
export const FORMULAS: Readonly<Record<string, Formula>> = {
  Sum: (b, node) => {
    return sum(b, inputs(node));
  },
  Mean: (b, node) => {
    const total = sum(b, inputs(node));
    return total === undefined ? undefined : b.op.Div(total, inputs(node).length);
  },
  // Since opset 13 over one axis; before, over all from an axis on.
  LogSoftmax: (b, node) => {
    if (b.opset('') < 13) return undefined;
    const x = node.input(0);
    const axis = number(node, 'axis', -1);
    const z = b.op.Sub(x, b.op.ReduceMax(x, [axis], { keepdims: 1 }));
    return b.op.Sub(z, b.op.Log(b.op.ReduceSum(b.op.Exp(z), [axis], { keepdims: 1 })));
  },
  Or: (b, node) => either(b, node.input(0), node.input(1)),
  Xor: (b, node) => {
    const [x, y] = [node.input(0), node.input(1)];
    return b.op.And(either(b, x, y), b.op.Not(b.op.And(x, y)));
  },
  Sign: (b, node) => {
    const x = node.input(0);
    const dtype = dtypeOf(x);
    if (dtype === undefined) return undefined;
    const [one, zero, minus] = [1, 0, -1].map((n) => b.scalar(n, dtype)) as [Value, Value, Value];
    return b.op.Where(b.op.Greater(x, zero), one, b.op.Where(b.op.Less(x, zero), minus, zero));
  },
  // The one number that is not equal to itself.
  IsNaN: (b, node) => b.op.Not(b.op.Equal(node.input(0), node.input(0))),
  // x − y·trunc(x/y) has the sign of x; of integers without fmod, y is added where that is not the sign of y.
  Mod: (b, node) => {
    const [x, y] = [node.input(0), node.input(1)];
    const dtype = dtypeOf(x);
    if (dtype === undefined) return undefined;
    const quotient = b.op.Div(x, y);
    const below = (value: Value) => b.op.Less(value, b.scalar(0, dtype));
    const above = (value: Value) => b.op.Greater(value, b.scalar(0, dtype));
    if (isFloat(dtype)) {
      const truncated = b.op.Where(below(quotient), b.op.Ceil(quotient), b.op.Floor(quotient));
      return b.op.Sub(x, b.op.Mul(y, truncated));
    }
    const rest = b.op.Sub(x, b.op.Mul(y, quotient));
    if (number(node, 'fmod', 0) === 1) return rest;
    const apart = either(b, b.op.And(below(rest), above(y)), b.op.And(above(rest), below(y)));
    return b.op.Where(apart, b.op.Add(rest, y), rest);
  },
  Softsign: (b, node) => b.op.Div(node.input(0), b.op.Add(b.op.Abs(node.input(0)), 1)),
  Selu: (b, node) => {
    const x = node.input(0);
    const alpha = number(node, 'alpha', 1.6732632423543772);
    const gamma = number(node, 'gamma', 1.0507009873554805);
    const negative = b.op.Mul(b.op.Sub(b.op.Exp(b.op.Neg(b.op.Relu(b.op.Neg(x)))), 1), alpha);
    return b.op.Mul(b.op.Add(b.op.Relu(x), negative), gamma);
  },
};
