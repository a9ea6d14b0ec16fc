/**
 * Known contents of values: numbers of small constants and of the integer arithmetic that shape code does on them,
 * where an element may be a symbolic dimension. Side table, because contents follow from the graph and are no part of it.
 */
import type { Node, Value } from '../graph.js';
import { decodeNumbers, tensorOf } from '../literals.js';
import type { Tensor } from '../tensor.js';
import { countOf, type Dim, isFloat } from '../types.js';

/** Row-major elements of a small tensor; `null` is an unknown element. bool is 0 or 1. */
export interface Contents {
  readonly dims: readonly number[];
  readonly items: readonly Dim[];
}

/** Constants with more elements than this are not looked into. */
export const CONTENTS_LIMIT = 1024;

const computed = new WeakMap<Value, Contents>();
const decoded = new WeakMap<Tensor, Contents | null>();
const overridable = new WeakSet<Value>();

/** Marks an initializer that is a graph input too (IR ≥ 4): its payload is only a default. */
export function setOverridable(value: Value, is: boolean): void {
  if (is) overridable.add(value);
  else overridable.delete(value);
}

export function setContents(value: Value, contents: Contents | undefined): void {
  if (contents === undefined || contents.items.every((item) => item === null)) computed.delete(value);
  else computed.set(value, contents);
}

function attributeTensor(node: Node): Tensor | undefined {
  for (const [name, attribute] of node.attributes) {
    if (name === 'value' && attribute.type === 'tensor') return attribute.value;
    if (name === 'value_int' && attribute.type === 'int') return tensorOf('int64', [], [attribute.value]);
    if (name === 'value_ints' && attribute.type === 'ints')
      return tensorOf('int64', [attribute.value.length], attribute.value);
    if (name === 'value_float' && attribute.type === 'float')
      return tensorOf('float32', [], [attribute.value]);
    if (name === 'value_floats' && attribute.type === 'floats')
      return tensorOf('float32', [attribute.value.length], attribute.value);
  }
  return undefined;
}

/** Small Constant nodes with list attributes are turned into tensors once. */
const constantNodes = new WeakMap<Node, Tensor | null>();

/** The payload of a value that no run can change: an initializer, or the output of Constant or Identity over one. */
export function payloadOf(value: Value): Tensor | undefined {
  if (value.tensor !== undefined) return overridable.has(value) ? undefined : value.tensor;
  const node = value.producer;
  if (node === undefined || node.domain !== '') return undefined;
  if (node.op === 'Constant') {
    let tensor = constantNodes.get(node);
    if (tensor === undefined) {
      tensor = attributeTensor(node) ?? null;
      constantNodes.set(node, tensor);
    }
    return tensor ?? undefined;
  }
  if (node.op === 'Identity') {
    const source = node.inputs[0];
    return source === null || source === undefined ? undefined : payloadOf(source);
  }
  return undefined;
}

/** Numbers of a small constant. */
export function contentsOfTensor(tensor: Tensor): Contents | undefined {
  const known = decoded.get(tensor);
  if (known !== undefined) return known ?? undefined;
  let contents: Contents | null = null;
  const count = countOf(tensor.dims);
  if (count <= CONTENTS_LIMIT && tensor.data.inline !== undefined && readable(tensor))
    contents = { dims: tensor.dims, items: Array.from(decodeNumbers(tensor), Number) };
  decoded.set(tensor, contents);
  return contents ?? undefined;
}

function readable(tensor: Tensor): boolean {
  return (
    tensor.strings === undefined &&
    (isFloat(tensor.dtype) || tensor.dtype === 'bool' || /^u?int(8|16|32|64)$/.test(tensor.dtype))
  );
}

/** What is known of the elements of a small value. */
export function contentsOf(value: Value | null | undefined): Contents | undefined {
  if (value === null || value === undefined) return undefined;
  const found = computed.get(value);
  if (found !== undefined) return found;
  const tensor = payloadOf(value);
  return tensor === undefined ? undefined : contentsOfTensor(tensor);
}

/**
 * The constant a value holds: an initializer, a Constant node, or what shape arithmetic made of constants.
 * Undefined when it depends on inputs.
 */
export function constantOf(value: Value): Tensor | undefined {
  const tensor = payloadOf(value);
  if (tensor !== undefined) return tensor;
  const contents = computed.get(value);
  const type = value.type;
  if (contents === undefined || type?.kind !== 'tensor') return undefined;
  const numbers: number[] = [];
  for (const item of contents.items) {
    if (typeof item !== 'number' || (!isFloat(type.dtype) && !Number.isSafeInteger(item))) return undefined;
    numbers.push(item);
  }
  return tensorOf(type.dtype, contents.dims, numbers);
}

/** Integers a constant value holds, in row-major order; undefined when unknown or not integers. */
export function intsOf(value: Value): bigint[] | undefined {
  const tensor = payloadOf(value);
  if (tensor !== undefined) {
    if (tensor.data.inline === undefined || !readable(tensor) || isFloat(tensor.dtype)) return undefined;
    return decodeNumbers(tensor).map(BigInt);
  }
  const contents = computed.get(value);
  if (contents === undefined) return undefined;
  const out: bigint[] = [];
  for (const item of contents.items) {
    if (typeof item !== 'number' || !Number.isSafeInteger(item)) return undefined;
    out.push(BigInt(item));
  }
  return out;
}

/** Elements of a shape vector (or scalar), symbolic where they depend on input shapes; undefined when unknown. */
export function symbolicIntsOf(value: Value): Dim[] | undefined {
  const contents = contentsOf(value);
  return contents === undefined || contents.dims.length > 1 ? undefined : [...contents.items];
}
