/**
 * Formulas that only move and scale numbers, as those of LoRA's factors do, evaluated here: what ONNX Runtime takes to
 * start is more than they take.
 */
import type { Node, Value } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import { countOf } from '../../../src/types.js';
import { type HostTensor, numbersOf, scalarOf } from '../../host-tensor.js';
import { transposed } from '../../moved.js';
import { turnsMatrix } from './split.js';

type Rule = (inputs: readonly HostTensor[], node: Node) => HostTensor | undefined;

/** Undefined for forms of an operator that are left to the runtime. All numbers are float32. */
const RULES: Readonly<Record<string, Rule>> = {
  Identity: ([x]) => x,
  Neg: ([x]) => x && scaled(x, -1),
  Mul: ([a, b]) => {
    if (a === undefined || b === undefined) return undefined;
    const [scale, x] = countOf(a.dims) === 1 ? [a, b] : [b, a];
    return countOf(scale.dims) === 1 && scale.dims.length <= x.dims.length
      ? scaled(x, scalarOf(scale))
      : undefined;
  },
  Transpose: ([x], node) => (x?.dims.length === 2 && turnsMatrix(node) ? transposed(x) : undefined),
  Concat: (parts, { attributes }) => {
    const axis = attributes.get('axis');
    const [first] = parts;
    if (first === undefined || axis?.type !== 'int' || Number(axis.value) !== 0) return undefined;
    const rows = parts.reduce((sum, { dims: [count = 1] }) => sum + count, 0);
    return {
      ...first,
      dims: [rows, ...first.dims.slice(1)],
      data: new Uint8Array(Buffer.concat(parts.map(({ data }) => data))),
    };
  },
};

function scaled(tensor: HostTensor, by: number): HostTensor {
  if (by === 1) return tensor;
  // Products of floats are exact in float64, and rounded once when they are stored.
  const numbers = (numbersOf(tensor) as Float32Array).map((number) => number * by);
  return { ...tensor, data: new Uint8Array(numbers.buffer) };
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
  const known = new Map<Value, HostTensor | undefined>();
  const tensorOf = (value: Value | null): HostTensor | undefined => {
    if (value === null) return undefined;
    if (!known.has(value)) known.set(value, computed(value));
    return known.get(value);
  };
  const computed = ({ producer, tensor, name }: Value): HostTensor | undefined => {
    if (producer === undefined) {
      const stored = tensor && { ...tensor, data: tensor.data.read(0, tensor.data.byteLength) };
      const given = stored ?? feeds.get(name ?? '');
      return given?.dtype === 'float32' ? given : undefined;
    }
    const rule = producer.domain === '' ? RULES[producer.op] : undefined;
    const inputs = rule === undefined ? [] : producer.inputs.map(tensorOf);
    return inputs.every((input) => input !== undefined) ? rule?.(inputs, producer) : undefined;
  };
  const outputs: Record<string, HostTensor> = {};
  for (const { name, value } of graph.outputs) {
    const output = tensorOf(value);
    if (output === undefined || name === undefined) return undefined;
    outputs[name] = output;
  }
  return outputs;
}
