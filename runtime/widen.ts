/**
 * bfloat16 models computed in float32, for providers without bfloat16 kernels (the CPU has next to none). The stored
 * numbers stay what they are, rounded to bfloat16; only the arithmetic between them is finer.
 */
import { type Attribute, attr } from '../src/attribute.js';
import { cloneModel } from '../src/clone.js';
import { type Graph, walkGraphs } from '../src/graph.js';
import type { Model } from '../src/model.js';
import type { Tensor, TensorData } from '../src/tensor.js';
import { DTYPE_CODES, type ValueType } from '../src/types.js';

/** Attributes that hold the code of a dtype. */
const DTYPE_ATTRIBUTES = new Set(['to', 'dtype', 'output_dtype', 'stash_type', 'softmax_precision']);

/** bfloat16 bytes read as float32 bytes. */
class WidenedData implements TensorData {
  constructor(readonly narrow: TensorData) {}
  get byteLength(): number {
    return this.narrow.byteLength * 2;
  }
  get inline(): Uint8Array | undefined {
    const inline = this.narrow.inline;
    return inline === undefined ? undefined : widenBytes(inline, 0, this.byteLength);
  }
  read(offset: number, length: number): Uint8Array {
    const first = Math.floor(offset / 4) * 2;
    const end = Math.min(Math.ceil((offset + length) / 4) * 2, this.narrow.byteLength);
    return widenBytes(this.narrow.read(first, end - first), offset % 4, length);
  }
}

/** A bfloat16 is the upper half of a float32. */
function widenBytes(bytes: Uint8Array, start: number, length: number): Uint8Array {
  const wide = new Uint8Array(bytes.length * 2);
  for (let i = 0; i < bytes.length; i += 2) {
    wide[2 * i + 2] = bytes[i] ?? 0;
    wide[2 * i + 3] = bytes[i + 1] ?? 0;
  }
  return wide.subarray(start, start + length);
}

/** Whether any value or payload of a model is bfloat16. */
export function hasBfloat16(model: Model): boolean {
  for (const graph of graphsOf(model))
    for (const { tensor, type } of valuesOf(graph))
      if (tensor?.dtype === 'bfloat16' || (type?.kind === 'tensor' && type.dtype === 'bfloat16')) return true;
  return false;
}

/** A copy of the model with float32 wherever it has bfloat16, inputs and outputs included. */
export function widenBfloat16(model: Model): Model {
  const copy = cloneModel(model).model;
  for (const graph of graphsOf(copy)) {
    for (const value of valuesOf(graph)) {
      value.type = widenType(value.type);
      if (value.tensor !== undefined) value.tensor = widenTensor(value.tensor);
    }
    for (const output of graph.outputs) output.type = widenType(output.type);
    for (const node of graph.nodes())
      for (const [name, attribute] of node.attributes) {
        const wide = widenAttribute(name, attribute);
        if (wide !== attribute) node.attributes.set(name, wide);
      }
  }
  return copy;
}

function* graphsOf(model: Model): IterableIterator<Graph> {
  yield* walkGraphs(model.graph);
  for (const { graph } of model.functions) yield* walkGraphs(graph);
}

function* valuesOf(graph: Graph) {
  yield* graph.inputs;
  for (const value of graph.initializers) if (!graph.inputs.includes(value)) yield value;
  for (const node of graph.nodes()) for (const output of node.outputs) if (output !== null) yield output;
}

function widenType(type: ValueType | undefined): ValueType | undefined {
  if (type === undefined) return undefined;
  if ('element' in type) return { ...type, element: widenType(type.element) ?? type.element };
  return 'dtype' in type && type.dtype === 'bfloat16' ? { ...type, dtype: 'float32' } : type;
}

function widenTensor(tensor: Tensor): Tensor {
  if (tensor.dtype !== 'bfloat16') return tensor;
  return { dtype: 'float32', dims: tensor.dims, data: new WidenedData(tensor.data) };
}

function widenAttribute(name: string, attribute: Attribute): Attribute {
  if (attribute.type === 'tensor' && attribute.value.dtype === 'bfloat16')
    return { ...attribute, value: widenTensor(attribute.value) };
  if (
    attribute.type === 'int' &&
    DTYPE_ATTRIBUTES.has(name) &&
    attribute.value === BigInt(DTYPE_CODES.bfloat16)
  )
    return attr.int(DTYPE_CODES.float32);
  return attribute;
}
