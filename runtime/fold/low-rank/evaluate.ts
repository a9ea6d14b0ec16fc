/**
 * Formulas that only move and scale numbers, as those of LoRA's factors do, evaluated here: what ONNX Runtime takes to
 * start is more than they take.
 */
import type { Node, Value } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import { countOf } from '../../../src/types.js';
import { type HostTensor, numbersOf } from '../../host-tensor.js';

interface Floats {
  readonly dims: readonly number[];
  readonly numbers: Float32Array;
}

type Rule = (inputs: readonly Floats[], node: Node) => Floats | undefined;

/** Undefined for forms of an operator that are left to the runtime. */
const RULES: Readonly<Record<string, Rule>> = {
  Identity: ([x]) => x,
  Neg: ([x]) => x && { dims: x.dims, numbers: x.numbers.map((number) => -number) },
  Mul: ([a, b]) => {
    const [scale, x] = a?.numbers.length === 1 ? [a, b] : [b, a];
    if (scale?.numbers.length !== 1 || x === undefined || scale.dims.length > x.dims.length) return undefined;
    const [by = 1] = scale.numbers;
    // Products of floats are exact in float64, and rounded once when they are stored.
    return by === 1 ? x : { dims: x.dims, numbers: x.numbers.map((number) => number * by) };
  },
  Transpose: ([x], { attributes }) => {
    const perm = attributes.get('perm');
    const turns = perm === undefined || (perm.type === 'ints' && perm.value.join() === '1,0');
    return x?.dims.length === 2 && turns ? transposed(x) : undefined;
  },
  Concat: (parts, { attributes }) => {
    const axis = attributes.get('axis');
    const [first] = parts;
    if (first === undefined || axis?.type !== 'int' || Number(axis.value) !== 0) return undefined;
    const rows = parts.reduce((sum, { dims: [count = 1] }) => sum + count, 0);
    const dims = [rows, ...first.dims.slice(1)];
    const numbers = new Float32Array(countOf(dims));
    let at = 0;
    for (const part of parts) {
      numbers.set(part.numbers, at);
      at += part.numbers.length;
    }
    return { dims, numbers };
  },
};

function transposed({ dims: [rows = 1, columns = 1], numbers }: Floats): Floats {
  const turned = new Float32Array(numbers.length);
  for (let row = 0, i = 0; row < rows; row++)
    for (let column = 0; column < columns; column++, i++) turned[column * rows + row] = numbers[i] as number;
  return { dims: [columns, rows], numbers: turned };
}

/**
 * The outputs of a formula by name.
 * @param feeds float32, by input name; they are read only
 * @returns undefined for a formula with anything else in it
 */
export function evaluateHere(
  { graph }: Model,
  feeds: ReadonlyMap<string, HostTensor>,
): Record<string, HostTensor> | undefined {
  const known = new Map<Value, Floats | undefined>();
  const floatsOf = (value: Value | null): Floats | undefined => {
    if (value === null) return undefined;
    if (!known.has(value)) known.set(value, computed(value));
    return known.get(value);
  };
  const computed = (value: Value): Floats | undefined => {
    const { producer, tensor, name } = value;
    if (producer === undefined) {
      const stored = tensor && { ...tensor, data: tensor.data.read(0, tensor.data.byteLength) };
      return view(stored ?? feeds.get(name ?? ''));
    }
    const rule = producer.domain === '' ? RULES[producer.op] : undefined;
    const inputs = rule === undefined ? [] : producer.inputs.map(floatsOf);
    return inputs.every((input) => input !== undefined) ? rule?.(inputs, producer) : undefined;
  };
  const outputs = graph.outputs.map(({ name, value }) => [name, floatsOf(value)] as const);
  if (outputs.some(([, floats]) => floats === undefined)) return undefined;
  return Object.fromEntries(outputs.map(([name, floats]) => [name, hostTensor(floats as Floats)]));
}

function view(tensor: HostTensor | undefined): Floats | undefined {
  return tensor?.dtype === 'float32'
    ? { dims: tensor.dims, numbers: numbersOf(tensor) as Float32Array }
    : undefined;
}

function hostTensor({ dims, numbers }: Floats): HostTensor {
  const data = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  return { dtype: 'float32', dims, data };
}
