/** Attributes of nodes: a closed union over ONNX `AttributeProto`. INT stays bigint, so that no bit is lost. */
import type { Graph } from './graph.js';
import type { Tensor } from './tensor.js';
import type { ValueType } from './types.js';

export interface SparseTensor {
  readonly dims: readonly number[];
  readonly values: Tensor;
  readonly indices: Tensor;
}

export type Attribute =
  | { readonly type: 'float'; readonly value: number }
  | { readonly type: 'int'; readonly value: bigint }
  | { readonly type: 'string'; readonly value: string }
  /** A STRING attribute whose bytes are not UTF-8. */
  | { readonly type: 'bytes'; readonly value: Uint8Array }
  | { readonly type: 'tensor'; readonly value: Tensor; readonly name?: string }
  | { readonly type: 'graph'; readonly value: Graph }
  | { readonly type: 'sparse'; readonly value: SparseTensor }
  | { readonly type: 'typeProto'; readonly value: ValueType }
  | { readonly type: 'floats'; readonly value: readonly number[] }
  | { readonly type: 'ints'; readonly value: readonly bigint[] }
  | { readonly type: 'strings'; readonly value: readonly string[] }
  | { readonly type: 'byteStrings'; readonly value: readonly Uint8Array[] }
  | { readonly type: 'tensors'; readonly value: readonly Tensor[] }
  | { readonly type: 'graphs'; readonly value: readonly Graph[] }
  | { readonly type: 'sparses'; readonly value: readonly SparseTensor[] }
  | { readonly type: 'typeProtos'; readonly value: readonly ValueType[] }
  /** Inside a function body: the attribute of the caller with this name (`ref_attr_name`), of ONNX type code `attrType`. */
  | { readonly type: 'ref'; readonly value: string; readonly attrType: number };

export const attr = {
  int: (value: number | bigint): Attribute => ({ type: 'int', value: BigInt(value) }),
  ints: (value: readonly (number | bigint)[]): Attribute => ({ type: 'ints', value: value.map(BigInt) }),
  float: (value: number): Attribute => ({ type: 'float', value: Math.fround(value) }),
  floats: (value: readonly number[]): Attribute => ({ type: 'floats', value: value.map(Math.fround) }),
  string: (value: string): Attribute => ({ type: 'string', value }),
  tensor: (value: Tensor): Attribute => ({ type: 'tensor', value }),
} as const;

/** `AttributeProto.AttributeType` of each of our types. */
export const ATTRIBUTE_CODES = {
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  graph: 5,
  floats: 6,
  ints: 7,
  strings: 8,
  tensors: 9,
  graphs: 10,
  sparse: 11,
  sparses: 12,
  typeProto: 13,
  typeProtos: 14,
} as const;

/** The number of an INT attribute; `fallback` for every other, and for none. */
export function intOf<T extends number | undefined>(
  attribute: Attribute | undefined,
  fallback: T,
): number | T {
  return attribute?.type === 'int' ? Number(attribute.value) : fallback;
}

/** The number of a FLOAT attribute. */
export function floatOf(attribute: Attribute | undefined, fallback: number): number {
  return attribute?.type === 'float' ? attribute.value : fallback;
}

/** The text of a STRING attribute. */
export function textOf(attribute: Attribute | undefined, fallback: string): string {
  return attribute?.type === 'string' ? attribute.value : fallback;
}

/** The numbers of an INTS attribute; undefined for every other, and for none. */
export function numbersOfInts(attribute: Attribute | undefined): number[] | undefined {
  return attribute?.type === 'ints' ? attribute.value.map(Number) : undefined;
}

/** Whatever has attributes by name: a node, or a call that is being built. */
export interface AttributeHolder {
  readonly attributes: ReadonlyMap<string, Attribute>;
}

/** An INT attribute as a number. */
export function intAttribute({ attributes }: AttributeHolder, name: string, fallback: number): number {
  return intOf(attributes.get(name), fallback);
}

/** A FLOAT attribute. */
export function floatAttribute({ attributes }: AttributeHolder, name: string, fallback: number): number {
  return floatOf(attributes.get(name), fallback);
}

/** A STRING attribute. */
export function textAttribute({ attributes }: AttributeHolder, name: string, fallback: string): string {
  return textOf(attributes.get(name), fallback);
}

/** An INTS attribute as numbers; undefined when absent. */
export function intsAttribute({ attributes }: AttributeHolder, name: string): number[] | undefined {
  return numbersOfInts(attributes.get(name));
}

/** The graphs an attribute holds (If, Loop, Scan bodies); empty for all other attributes. */
export function graphsOf(attribute: Attribute): readonly Graph[] {
  if (attribute.type === 'graph') return [attribute.value];
  if (attribute.type === 'graphs') return attribute.value;
  return [];
}

/** The tensors an attribute holds; of a sparse one, its values and indices. */
export function tensorsOf(attribute: Attribute): readonly Tensor[] {
  switch (attribute.type) {
    case 'tensor':
      return [attribute.value];
    case 'tensors':
      return attribute.value;
    case 'sparse':
      return [attribute.value.values, attribute.value.indices];
    case 'sparses':
      return attribute.value.flatMap(({ values, indices }) => [values, indices]);
    default:
      return [];
  }
}
