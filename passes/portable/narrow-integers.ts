/**
 * 64-bit integers as 32-bit ones, for devices that have no kernels for the former: token ids, masks, labels and what is
 * computed from them. Shapes, axes and other operands that must be int64 stay so where they are constants; a Cast stands
 * where such an operand is computed.
 */
import { type Attribute, attr } from '../../src/attribute.js';
import { cloneModel } from '../../src/clone.js';
import { Node, redirectUses, Value } from '../../src/graph.js';
import { decodeNumbers, tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { formalAt, type OpSchema, schemaOf } from '../../src/ops/schema.js';
import type { Tensor } from '../../src/tensor.js';
import { DTYPE_CODES, tensorType, type ValueType } from '../../src/types.js';
import { shapeOf } from '../../src/value-type.js';

const MAX = 2n ** 31n - 1n;
const MIN = -(2n ** 31n);

/** Attributes that name the dtype of an output. */
const DTYPE_ATTRIBUTES: ReadonlySet<string> = new Set(['to', 'dtype']);

/** Operators whose int64 limits stand for "to the end". */
const CLAMPED: ReadonlySet<string> = new Set(['Slice']);

/**
 * A copy with int32 inputs, outputs and arithmetic; the model itself where it cannot be done: control flow, numbers
 * beyond 32 bits. Types must be known (`inferModel`) and constants be initializers.
 */
export function narrowIntegers(model: Model): Model {
  if ([...model.graph.nodes()].some((node) => node.subgraphs.length > 0)) return model;
  const copy = cloneModel(model).model;
  const narrower = new Narrower(copy);
  return narrower.run() ? copy : model;
}

class Narrower {
  readonly #model: Model;
  /** Values that were int64 and are int32. */
  readonly #narrow = new Set<Value>();
  readonly #constants = new Map<Value, Value | null>();
  /** int64 forms of narrow values. */
  readonly #widened = new Map<Value, Value>();

  constructor(model: Model) {
    this.#model = model;
  }

  run(): boolean {
    const { graph } = this.#model;
    for (const input of graph.inputs)
      if (input.tensor === undefined && isInt64(input.type)) this.#makeNarrow(input);
    for (const node of [...graph.nodes()]) if (!this.#node(node)) return false;
    for (const output of graph.outputs) {
      if (output.value.tensor !== undefined) return false;
      output.type = output.value.type;
    }
    for (const value of [...graph.initializers])
      if (value.uses.size === 0 && !graph.inputs.includes(value)) graph.initializers.delete(value);
    return true;
  }

  #makeNarrow(value: Value): void {
    if (value.type?.kind === 'tensor') value.type = { ...value.type, dtype: 'int32' };
    this.#narrow.add(value);
  }

  /** What the node reads was visited before. False where a constant is too large. */
  #node(node: Node): boolean {
    const schema = schemaOf(node.domain, node.op, this.#model.opset(node.domain));
    for (const [index, input] of node.inputs.entries()) {
      if (input === null) continue;
      const narrow = takesInt32(schema, schema && formalAt(schema.inputs, index)?.type);
      if (this.#narrow.has(input)) {
        if (!narrow) node.setInput(index, this.#wide(node, input));
      } else if (narrow && input.tensor?.dtype === 'int64') {
        const constant = this.#constant(input, input.tensor, CLAMPED.has(node.op));
        if (constant === null) return false;
        node.setInput(index, constant);
      }
    }
    for (const [name, attribute] of [...node.attributes]) {
      const changed = narrowAttribute(name, attribute);
      if (changed === null) return false;
      node.attributes.set(name, changed);
    }
    for (const [index, output] of node.outputs.entries()) {
      if (output === null || !isInt64(output.type)) continue;
      if (takesInt32(schema, schema && formalAt(schema.outputs, index)?.type)) this.#makeNarrow(output);
      else this.#castResult(node, output);
    }
    return true;
  }

  /** The int32 twin of an int64 constant; null where a number does not fit. */
  #constant(value: Value, tensor: Tensor, clamp: boolean): Value | null {
    const known = this.#constants.get(value);
    if (known !== undefined) return known;
    const small = narrowTensor(tensor, clamp);
    const twin =
      small === null
        ? null
        : new Value({ hint: value.hint, type: tensorType('int32', small.dims), tensor: small });
    if (twin !== null) this.#model.graph.addInitializer(twin);
    this.#constants.set(value, twin);
    return twin;
  }

  /** A narrow value as int64, for an operand that takes nothing else. */
  #wide(reader: Node, value: Value): Value {
    const known = this.#widened.get(value);
    if (known !== undefined) return known;
    const wide = new Value({
      hint: `${value.hint}_int64`,
      type: tensorType('int64', shapeOf(value) ?? null),
    });
    this.#model.graph.insertBefore(reader, cast(value, wide, 'int64'));
    this.#widened.set(value, wide);
    return wide;
  }

  /** For an operator that gives int64 alone: what reads it gets the int32 of it. */
  #castResult(node: Node, output: Value): void {
    const narrow = new Value({
      hint: `${output.hint}_int32`,
      type: tensorType('int32', shapeOf(output) ?? null),
    });
    redirectUses(output, narrow);
    this.#model.graph.insertAfter(node, cast(output, narrow, 'int32'));
    this.#narrow.add(narrow);
    this.#widened.set(narrow, output);
  }
}

function cast(from: Value, to: Value, dtype: 'int32' | 'int64'): Node {
  const node = new Node({
    op: 'Cast',
    inputs: [from],
    attributes: [['to', attr.int(DTYPE_CODES[dtype])]],
    outputs: [to],
  });
  node.provenance = 'narrow-integers';
  return node;
}

function isInt64(type: ValueType | undefined): boolean {
  return type?.kind === 'tensor' && type.dtype === 'int64';
}

/** Whether a type parameter of an operator may be int32. */
function takesInt32(schema: OpSchema | undefined, type: string | undefined): boolean {
  return type !== undefined && (schema?.types.get(type)?.has('int32') ?? false);
}

function narrowTensor(tensor: Tensor, clamp: boolean): Tensor | null {
  if (tensor.data.stream !== undefined) return null;
  const numbers = Array.from(decodeNumbers(tensor), BigInt);
  const narrow = numbers.map((n) => (n > MAX ? MAX : n < MIN ? MIN : n));
  if (!clamp && numbers.some((n, i) => n !== narrow[i])) return null;
  return tensorOf('int32', tensor.dims, narrow);
}

function narrowAttribute(name: string, attribute: Attribute): Attribute | null {
  if (attribute.type === 'int' && DTYPE_ATTRIBUTES.has(name) && attribute.value === BigInt(DTYPE_CODES.int64))
    return attr.int(DTYPE_CODES.int32);
  if (attribute.type === 'tensor' && attribute.value.dtype === 'int64') {
    const value = narrowTensor(attribute.value, false);
    return value === null ? null : { ...attribute, value };
  }
  return attribute;
}
