/** Plain JavaScript values to ONNX attributes, by the type that the operator's schema states. */
import { type Attribute, attr, type SparseTensor } from '../attribute.js';
import { fail } from '../errors.js';
import { Graph } from '../graph.js';
import type { Tensor } from '../tensor.js';
import { DTYPE_CODES, type DType, type ValueType } from '../types.js';
import type { Int } from './operand.js';
import type { OpSchema } from './schema.js';

export type AttributeInput =
  | Attribute
  | Int
  | boolean
  | string
  | readonly Int[]
  | readonly string[]
  | Tensor
  | Graph
  | SparseTensor
  | ValueType
  | undefined;

function isInt(value: unknown): value is Int {
  return typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value));
}

const dtypeCodes: Readonly<Record<string, number>> = DTYPE_CODES;

/** One converter per ONNX attribute type; undefined when the value does not fit. */
const CONVERTERS: Readonly<Record<string, (value: unknown) => Attribute | undefined>> = {
  int: (value) => {
    if (isInt(value)) return attr.int(value);
    if (typeof value === 'boolean') return attr.int(value ? 1 : 0);
    if (typeof value === 'string' && Object.hasOwn(dtypeCodes, value))
      return attr.int(DTYPE_CODES[value as DType]);
    return undefined;
  },
  ints: (value) => (Array.isArray(value) && value.every(isInt) ? attr.ints(value) : undefined),
  float: (value) => (typeof value === 'number' ? attr.float(value) : undefined),
  floats: (value) =>
    Array.isArray(value) && value.every((x) => typeof x === 'number') ? attr.floats(value) : undefined,
  string: (value) => (typeof value === 'string' ? attr.string(value) : undefined),
  strings: (value) =>
    Array.isArray(value) && value.every((x) => typeof x === 'string')
      ? { type: 'strings', value }
      : undefined,
  tensor: (value) => attr.tensor(value as Tensor),
  graph: (value) => (value instanceof Graph ? { type: 'graph', value } : undefined),
  sparse_tensor: (value) => ({ type: 'sparse', value: value as SparseTensor }),
  type_proto: (value) => ({ type: 'typeProto', value: value as ValueType }),
};

function isAttribute(value: AttributeInput): value is Attribute {
  return typeof value === 'object' && value !== null && 'type' in value && 'value' in value;
}

/** `E_TYPE` when the value does not fit the schema, or the operator has no such attribute. */
export function toAttribute(
  op: string,
  schema: OpSchema | undefined,
  name: string,
  value: AttributeInput,
): Attribute {
  if (isAttribute(value)) return value;
  const expected = schema?.attributes.get(name);
  if (expected === undefined)
    return fail('E_TYPE', {
      message: `The type of attribute '${name}' of ${op} is not known`,
      remedy: 'Check the name, or give an Attribute such as attr.int(1)',
    });
  return (
    CONVERTERS[expected.type]?.(value) ??
    fail('E_TYPE', { message: `Attribute '${name}' of ${op} takes ${expected.type}, not ${String(value)}` })
  );
}
