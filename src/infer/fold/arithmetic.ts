/** Elementwise arithmetic and logic on known contents. Integers may be symbolic; fractions are numbers only. */
import {
  addDims,
  boundsOf,
  divideDims,
  floorDivDims,
  maxDims,
  minDims,
  modDims,
  mulDims,
  sameDim,
  subDims,
} from '../../dims.js';
import { type Dim, isFloat } from '../../types.js';
import type { Call } from '../call.js';
import type { Contents } from '../contents.js';
import type { Fold, Folds } from './fold.js';
import { broadcastAt, broadcastNumeric, generate } from './nd.js';

type Operation = (...operands: Dim[]) => Dim;

/** Rounds numbers to what the output's dtype holds; leaves whole numbers and symbols alone. */
function rounder(c: Call): (dim: Dim) => Dim {
  const type = c.node.outputs[0]?.type;
  const single = type?.kind === 'tensor' && type.dtype === 'float32';
  return (dim) => (single && typeof dim === 'number' ? Math.fround(dim) : dim);
}

function elementwise(choose: (c: Call) => Operation): Fold {
  return (c) => {
    const inputs: Contents[] = [];
    for (let i = 0; i < c.node.inputs.length; i++) {
      const contents = c.contents(i);
      if (contents === undefined) return undefined;
      inputs.push(contents);
    }
    const dims = broadcastNumeric(inputs.map((x) => x.dims));
    if (dims === undefined) return undefined;
    const operation = choose(c);
    const round = rounder(c);
    const readers = inputs.map(broadcastAt);
    const result = generate(dims, (index) => round(operation(...readers.map((read) => read(index)))));
    return result === undefined ? undefined : [result];
  };
}

const always = (operation: Operation): Fold => elementwise(() => operation);

/** A two-operand operation that is only known for numbers. */
const numeric =
  (operation: (a: number, b: number) => number): Operation =>
  (a = null, b = null) =>
    typeof a === 'number' && typeof b === 'number' ? operation(a, b) : null;

const unary =
  (operation: (a: number) => number, symbol: (a: string) => Dim = () => null): Operation =>
  (a = null) =>
    a === null ? null : typeof a === 'number' ? operation(a) : symbol(a);

/** Truth of a comparison from the bounds of a − b, symbols being at least 0. */
function compare(decide: (min: number, max: number) => boolean | undefined): Operation {
  return (a = null, b = null) => {
    if (a === null || b === null) return null;
    if (typeof a === 'number' && typeof b === 'number') {
      const sign = Math.sign(a - b);
      const truth = decide(sign, sign);
      return truth === undefined ? null : Number(truth);
    }
    const difference = subDims(a, b);
    if (difference === null) return null;
    const { min, max } = boundsOf(difference);
    const truth = decide(min, max);
    return truth === undefined ? null : Number(truth);
  };
}

const less = compare((min, max) => (max < 0 ? true : min >= 0 ? false : undefined));
const lessOrEqual = compare((min, max) => (max <= 0 ? true : min > 0 ? false : undefined));
const swap =
  (operation: Operation): Operation =>
  (a = null, b = null) =>
    operation(b, a);

const equal: Operation = (a = null, b = null) => {
  if (a === null || b === null) return null;
  if (typeof a === 'number' && typeof b === 'number') return Number(a === b);
  if (sameDim(a, b)) return 1;
  const difference = subDims(a, b);
  const { min, max } = difference === null ? { min: 0, max: 0 } : boundsOf(difference);
  return min > 0 || max < 0 ? 0 : null;
};

const and: Operation = (a = null, b = null) => (a === 0 || b === 0 ? 0 : a === 1 && b === 1 ? 1 : null);
const or: Operation = (a = null, b = null) => (a === 1 || b === 1 ? 1 : a === 0 && b === 0 ? 0 : null);
const pick: Operation = (condition = null, a = null, b = null) =>
  condition === null ? (sameDim(a, b) ? a : null) : condition !== 0 ? a : b;

function floatOutput(c: Call): boolean {
  const type = c.node.outputs[0]?.type;
  return type?.kind === 'tensor' && isFloat(type.dtype);
}

/** Integer division truncates; ONNX leaves negative operands to C, symbols are not negative. */
const integerDivision: Operation = (a = null, b = null) => {
  if (b === 0) return null;
  if (typeof a === 'number' && typeof b === 'number') return Math.trunc(a / b);
  return floorDivDims(a, b);
};
const floatDivision: Operation = (a = null, b = null) =>
  typeof a === 'number' && typeof b === 'number' ? a / b : divideDims(a, b);

/** Symbols are whole numbers, fractions do not mix with them. */
const whole =
  (operation: (a: Dim, b: Dim) => Dim): Operation =>
  (...operands) => {
    const fraction = operands.some((x) => typeof x === 'number' && !Number.isInteger(x));
    if (fraction && operands.some((x) => typeof x !== 'number')) return null;
    return operands.slice(1).reduce((a, b) => operation(a, b), operands[0] ?? null);
  };

const roundHalfEven = (x: number): number => {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
};

const cast: Fold = (c) => {
  const contents = c.contents(0);
  const type = c.node.outputs[0]?.type;
  if (contents === undefined || type?.kind !== 'tensor') return undefined;
  const { dtype } = type;
  const convert = (dim: Dim): Dim => {
    if (dtype === 'bool')
      return typeof dim === 'number' ? Number(dim !== 0) : dim !== null && boundsOf(dim).min > 0 ? 1 : null;
    if (typeof dim !== 'number' || isFloat(dtype))
      return dtype === 'float32' && typeof dim === 'number' ? Math.fround(dim) : dim;
    return Math.trunc(dim);
  };
  return dtype === 'string' ? undefined : [{ dims: contents.dims, items: contents.items.map(convert) }];
};

export const arithmetic: Folds = {
  Add: always(whole(addDims)),
  Sub: always(whole(subDims)),
  Mul: always(whole(mulDims)),
  Div: elementwise((c) => (floatOutput(c) ? floatDivision : integerDivision)),
  Mod: elementwise((c) => (c.int('fmod', 0) !== 0 ? numeric((a, b) => a % b) : (modDims as Operation))),
  Min: always(whole(minDims)),
  Max: always(whole(maxDims)),
  Pow: always(numeric((a, b) => a ** b)),
  Neg: always((a = null) => subDims(0, a)),
  Abs: always(unary(Math.abs, (a) => (boundsOf(a).min >= 0 ? a : null))),
  Sign: always(unary(Math.sign)),
  Sqrt: always(unary(Math.sqrt)),
  Reciprocal: always(unary((a) => 1 / a)),
  Exp: always(unary(Math.exp)),
  Log: always(unary(Math.log)),
  Floor: always(unary(Math.floor, (a) => a)),
  Ceil: always(unary(Math.ceil, (a) => a)),
  Round: always(unary(roundHalfEven, (a) => a)),
  Not: always(unary((a) => Number(a === 0))),
  And: always(and),
  Or: always(or),
  Xor: always(numeric((a, b) => Number((a !== 0) !== (b !== 0)))),
  Equal: always(equal),
  Less: always(less),
  LessOrEqual: always(lessOrEqual),
  Greater: always(swap(less)),
  GreaterOrEqual: always(swap(lessOrEqual)),
  Where: always(pick),
  Cast: cast,
  CastLike: cast,
  Identity: (c) => {
    const contents = c.contents(0);
    return contents === undefined ? undefined : [contents];
  },
};
