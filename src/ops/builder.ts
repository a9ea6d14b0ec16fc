/**
 * Typed op builder. Signatures follow the newest form of each operator (opset 24); nodes come out in the form of the
 * model's own opset (see lowering.ts). Nodes are detached; an edit attaches `nodes` and adds `initializers`.
 */
import type { Attribute } from '../attribute.js';
import { fail } from '../errors.js';
import { Node, Value } from '../graph.js';
import { inferNode } from '../infer/index.js';
import { encodeNumbers, type NumberLike } from '../literals.js';
import type { Model } from '../model.js';
import { type Tensor, tensorOfBytes } from '../tensor.js';
import { type DType, tensorType } from '../types.js';
import { type AttributeInput, toAttribute } from './attributes.js';
import { resolveOperands } from './literal-types.js';
import { lower } from './lowering.js';
import type { OpCall } from './op-call.js';
import type { Int, Literal, Operand } from './operand.js';
import type { MicrosoftOps, Ops } from './ops.generated.js';
import { allowedTypes, formalAt, type OpSchema, schemaHistory, schemaOf } from './schema.js';

/** Newest opset whose forms the signatures follow. */
export const BUILDER_OPSET = 24;

export interface BuilderOptions {
  /** Which pass or method builds; recorded on every node. */
  readonly provenance?: string;
}

export interface CallOptions {
  readonly domain?: string;
  readonly overload?: string;
  /** Number of outputs, or which of the output slots are wanted. Default 1. */
  readonly outputs?: number | readonly boolean[];
  /** Hint for the names of outputs. */
  readonly hint?: string;
}

/** A plain object that is no operand: the attributes of a typed call. */
function isAttributes(argument: unknown): argument is Readonly<Record<string, AttributeInput>> {
  return (
    typeof argument === 'object' &&
    argument !== null &&
    !Array.isArray(argument) &&
    !(argument instanceof Value)
  );
}

export class Builder {
  readonly model: Model;
  readonly provenance: string | undefined;
  /** Nodes built so far, detached, in order. */
  readonly nodes: Node[] = [];
  /** Constants created so far. */
  readonly initializers: Value[] = [];
  /** Operators of ai.onnx. */
  readonly op: Ops;
  /** Contrib operators of ONNX Runtime (`com.microsoft`). */
  readonly microsoft: MicrosoftOps;
  readonly #constants = new Map<string, Value>();

  constructor(model: Model, options: BuilderOptions = {}) {
    this.model = model;
    this.provenance = options.provenance;
    this.op = this.#methods('') as Ops;
    this.microsoft = this.#methods('com.microsoft') as MicrosoftOps;
  }

  /** Builds a node as stated, without lowering. Attributes may be plain values where the operator's schema is known. */
  call(
    op: string,
    inputs: readonly (Operand | null)[],
    attributes: Readonly<Record<string, AttributeInput>> = {},
    options: CallOptions = {},
  ): Value[] {
    const domain = options.domain ?? '';
    const schema = this.#schema(domain, op) ?? schemaHistory(domain, op).at(-1);
    const entries = Object.entries(attributes)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [name, toAttribute(op, schema, name, value)] as const);
    return this.emit(
      { domain, op, inputs, attributes: new Map(entries), outputs: options.outputs ?? 1 },
      options,
    );
  }

  /** The constant as a value; equal constants share one value. */
  constant(tensor: Tensor, hint = 'constant'): Value {
    const bytes = tensor.data.inline;
    const key =
      bytes === undefined || tensor.strings !== undefined
        ? undefined
        : `${tensor.dtype}[${tensor.dims.join(',')}]${Buffer.from(bytes).toString('base64')}`;
    const known = key === undefined ? undefined : this.#constants.get(key);
    if (known !== undefined) return known;
    const value = new Value({ hint, type: tensorType(tensor.dtype, tensor.dims), tensor });
    this.initializers.push(value);
    if (key !== undefined) this.#constants.set(key, value);
    return value;
  }

  /** A rank-0 constant, rounded to nearest even. `E_TYPE` when an integer dtype cannot hold the number. */
  scalar(value: number | bigint | boolean, dtype: DType = 'float32'): Value {
    return this.constant(tensorOfBytes(dtype, [], encodeNumbers(dtype, [value])), hintOf(value));
  }

  /** A rank-1 int64 constant. */
  ints(values: readonly Int[], hint = 'ints'): Value {
    return this.constant(tensorOfBytes('int64', [values.length], encodeNumbers('int64', values)), hint);
  }

  /** An operand as a value of `dtype`: values pass, literals become constants. */
  operand(operand: Operand, dtype: DType, hint?: string): Value {
    if (operand instanceof Value) return operand;
    const literal: Literal = operand;
    if (isList(literal)) {
      const bytes = encodeNumbers(dtype, literal as readonly NumberLike[]);
      return this.constant(tensorOfBytes(dtype, [literal.length], bytes), hint ?? 'ints');
    }
    return this.constant(tensorOfBytes(dtype, [], encodeNumbers(dtype, [literal])), hintOf(literal));
  }

  /** Opset version of a domain; contrib domains that the model does not import yet count as version 1. */
  opset(domain: string): number {
    return domain === '' ? this.model.opset('') : (this.model.opsets.get(domain) ?? 1);
  }

  /** Adds a node of exactly this form. Called by lowerings. */
  emit(call: OpCall, options: CallOptions = {}): Value[] {
    const schema = this.#schema(call.domain, call.op);
    this.#check(call, schema);
    const inputs = resolveOperands(this, call, schema);
    while (inputs.length > 0 && inputs.at(-1) === null) inputs.pop();
    const hint = options.hint ?? call.op.toLowerCase();
    const wanted =
      typeof call.outputs === 'number' ? new Array<boolean>(call.outputs).fill(true) : call.outputs;
    const outputs = wanted.map((want) => (want ? new Value({ hint }) : null));
    const node = new Node({
      op: call.op,
      domain: call.domain,
      overload: options.overload ?? '',
      inputs,
      attributes: call.attributes,
      outputs,
    });
    node.provenance = this.provenance;
    if (call.domain !== '' && !this.model.opsets.has(call.domain)) this.model.opsets.set(call.domain, 1);
    this.nodes.push(node);
    inferNode(node, this.model);
    return outputs.filter((output) => output !== null);
  }

  #schema(domain: string, op: string): OpSchema | undefined {
    return schemaOf(domain, op, this.opset(domain));
  }

  /** The form must exist at the model's opset; attributes it does not know may only hold their default. */
  #check(call: OpCall, schema: OpSchema | undefined): void {
    const history = schemaHistory(call.domain, call.op);
    if (history.length === 0) return;
    const opset = this.opset(call.domain);
    const name = call.domain === '' ? call.op : `${call.domain}.${call.op}`;
    if (schema === undefined)
      fail('E_UNSUPPORTED', {
        message: `${name} does not exist at opset ${opset} (it came with opset ${history[0]!.since})`,
        remedy: 'Convert the model to a newer opset',
      });
    for (const attribute of call.attributes.keys())
      if (!schema.attributes.has(attribute))
        fail('E_UNSUPPORTED', {
          message: `${name} has no attribute '${attribute}' at opset ${opset}`,
          remedy: 'Convert the model to a newer opset, or leave the attribute out',
        });
    const last = schema.inputs.at(-1);
    if (call.inputs.length > schema.inputs.length && last?.option !== 'variadic')
      fail('E_UNSUPPORTED', {
        message: `${name} takes at most ${schema.inputs.length} inputs at opset ${opset}, not ${call.inputs.length}`,
      });
    const bound = new Map<string, DType>();
    call.inputs.forEach((input, index) => {
      const formal = formalAt(schema.inputs, index);
      if (!(input instanceof Value) || formal === undefined || input.type?.kind !== 'tensor') return;
      const other = formal.homogeneous ? bound.get(formal.type) : undefined;
      if (other !== undefined && other !== input.type.dtype)
        fail('E_TYPE', {
          message: `${name} takes one dtype for all inputs of type ${formal.type}, not ${other} and ${input.type.dtype}`,
          where: input.label,
          remedy: `Cast '${input.label}' to ${other}`,
        });
      bound.set(formal.type, input.type.dtype);
      const allowed = allowedTypes(schema, formal);
      if (!allowed.has(input.type.dtype))
        fail('E_TYPE', {
          message: `${name} takes no ${input.type.dtype} as '${formal.name}' at opset ${opset}`,
          where: input.label,
          remedy: `Cast to one of ${[...allowed].join(', ')}`,
        });
    });
  }

  #typed(domain: string, op: string, args: readonly unknown[]): Value | Value[] {
    const history = schemaHistory(domain, op);
    const schema = schemaOf(domain, op, domain === '' ? BUILDER_OPSET : Number.POSITIVE_INFINITY);
    if (schema === undefined || history.length === 0)
      return fail('E_UNSUPPORTED', { message: `The builder knows no operator ${op}`, remedy: 'Use call()' });
    const at = args.findIndex(isAttributes);
    const end = at < 0 ? Math.min(args.length, schema.inputs.length) : at;
    const inputs: (Operand | null)[] = [];
    for (let i = 0; i < end; i++) {
      const argument = args[i] as Operand | readonly Operand[] | null | undefined;
      if (schema.inputs[i]?.option === 'variadic') inputs.push(...((argument ?? []) as readonly Operand[]));
      else inputs.push((argument ?? null) as Operand | null);
    }
    const attributes = new Map<string, Attribute>();
    for (const [name, value] of Object.entries(at < 0 ? {} : (args[at] as Record<string, AttributeInput>)))
      if (value !== undefined) attributes.set(name, toAttribute(op, schema, name, value));
    const count = args[at < 0 ? schema.inputs.length + 1 : at + 1];
    const required = schema.outputs.filter(({ option }) => option === 'single').length;
    const outputs = typeof count === 'number' ? count : Math.max(1, required);
    const results = lower(this, { domain, op, inputs, attributes, outputs });
    return typeof count === 'number' || required > 1 ? results : results[0]!;
  }

  #methods(domain: string): object {
    const methods = new Map<string, (...args: unknown[]) => Value | Value[]>();
    return new Proxy(
      {},
      {
        get: (_, op) => {
          if (typeof op !== 'string') return undefined;
          let method = methods.get(op);
          if (method === undefined) {
            method = (...args) => this.#typed(domain, op, args);
            methods.set(op, method);
          }
          return method;
        },
      },
    );
  }
}

function isList(literal: Literal): literal is readonly Int[] {
  return Array.isArray(literal);
}

/** `c_0_5` for 0.5, `c_m1` for −1: names of scalar constants. */
function hintOf(value: number | bigint | boolean): string {
  return `c_${String(value).replace('-', 'm').replace(/\W/g, '_')}`;
}
