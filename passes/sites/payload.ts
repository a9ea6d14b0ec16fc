/** Reading constants while looking for sites: which values hold a payload, and the integers of small ones. */
import { intOf, intsAttribute } from '../../src/attribute.js';
import type { Node, Value } from '../../src/graph.js';
import type { Tensor } from '../../src/tensor.js';

/** The tensor behind an initializer or the output of a Constant node; undefined for everything computed. */
export function payloadOf(value: Value): Tensor | undefined {
  if (value.tensor !== undefined) return value.tensor;
  const producer = value.producer;
  if (producer === undefined || producer.op !== 'Constant' || producer.domain !== '') return undefined;
  const attribute = producer.attributes.get('value');
  return attribute?.type === 'tensor' ? attribute.value : undefined;
}

/** Contents of a small int32 or int64 tensor; undefined when they are not in memory or of another dtype. */
export function integersOf(tensor: Tensor): number[] | undefined {
  const bytes = tensor.data.inline;
  if (bytes === undefined) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (tensor.dtype === 'int64')
    return Array.from({ length: bytes.byteLength / 8 }, (_, i) => Number(view.getBigInt64(i * 8, true)));
  if (tensor.dtype === 'int32')
    return Array.from({ length: bytes.byteLength / 4 }, (_, i) => view.getInt32(i * 4, true));
  return undefined;
}

/** Integers of a constant value: a payload, or a Constant node with `value_int` or `value_ints`. */
export function constantIntegers(value: Value | null | undefined): number[] | undefined {
  if (value === null || value === undefined) return undefined;
  const tensor = payloadOf(value);
  if (tensor !== undefined) return integersOf(tensor);
  const producer = value.producer;
  if (producer?.op === 'Identity' && producer.domain === '') return constantIntegers(producer.inputs[0]);
  if (producer?.op !== 'Constant' || producer.domain !== '') return undefined;
  const one = intOf(producer.attributes.get('value_int'), undefined);
  return one === undefined ? intsAttribute(producer, 'value_ints') : [one];
}

/** Integers that older opsets give as an attribute and newer ones as an input. */
export function intsOfAttributeOrInput(node: Node, name: string, input: number): number[] | undefined {
  return intsAttribute(node, name) ?? constantIntegers(node.inputs[input]);
}
