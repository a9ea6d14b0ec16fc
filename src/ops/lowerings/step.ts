/** Vocabulary of lowering steps. */
import { type Attribute, attr, floatAttribute, intAttribute, textAttribute } from '../../attribute.js';
import { fail } from '../../errors.js';
import { Value } from '../../graph.js';
import { constantOf, intsOf } from '../../infer/index.js';
import { decodeNumbers } from '../../literals.js';
import type { DType } from '../../types.js';
import type { Builder } from '../builder.js';
import { type OpCall, withAttributes, withInputs } from '../op-call.js';
import type { Operand } from '../operand.js';

/** Rewrites a call to the form before an opset, or builds it from other ops. */
export type Step = (call: OpCall, builder: Builder, opset: number) => OpCall | Value[];

export interface Lowering {
  /** The step applies to opsets older than this. */
  readonly before: number;
  readonly step: Step;
}

export function unsupported(call: OpCall, opset: number, why: string): never {
  return fail('E_UNSUPPORTED', {
    message: `${call.op} at opset ${opset}: ${why}`,
    remedy: 'Convert the model to a newer opset',
  });
}

/** Integers of a literal or constant operand. */
export function knownInts(operand: Operand | null | undefined): bigint[] | undefined {
  if (operand === null || operand === undefined) return undefined;
  if (operand instanceof Value) return intsOf(operand);
  const list = Array.isArray(operand) ? operand : [operand];
  return list.map((x) => BigInt(x as number | bigint | boolean));
}

/** Number of a literal or constant scalar operand. */
export function knownNumber(operand: Operand | null | undefined): number | undefined {
  if (operand === null || operand === undefined) return undefined;
  if (operand instanceof Value) {
    const tensor = constantOf(operand);
    if (tensor?.data.inline === undefined) return undefined;
    const numbers = decodeNumbers(tensor);
    return numbers.length === 1 ? Number(numbers[0]) : undefined;
  }
  return Array.isArray(operand) ? undefined : Number(operand);
}

/** An integer input becomes an INTS attribute; absent stays absent. */
export function intsToAttribute(index: number, name: string): Step {
  return (call, _, opset) => {
    const operand = call.inputs[index];
    const inputs = call.inputs.slice(0, index);
    if (operand === null || operand === undefined) return withInputs(call, inputs);
    const ints = knownInts(operand);
    if (ints === undefined) return unsupported(call, opset, `'${name}' must be constant`);
    return withAttributes(withInputs(call, inputs), { [name]: attr.ints(ints) });
  };
}

/** Scalar inputs from `index` on become FLOAT (or INT) attributes. */
export function scalarsToAttributes(
  index: number,
  names: readonly string[],
  make: (value: number) => Attribute = attr.float,
): Step {
  return (call, _, opset) => {
    let out = withInputs(call, call.inputs.slice(0, index));
    names.forEach((name, i) => {
      const operand = call.inputs[index + i];
      if (operand === null || operand === undefined) return;
      const value = knownNumber(operand);
      if (value === undefined) unsupported(call, opset, `'${name}' must be constant`);
      out = withAttributes(out, { [name]: make(value) });
    });
    return out;
  };
}

/** What a decomposition reads of a call. */
export class Parts {
  constructor(
    readonly call: OpCall,
    readonly builder: Builder,
    readonly opset: number,
  ) {}

  /** The i-th operand as a value; literals take `dtype`, or the dtype of the first value operand. */
  value(index: number, dtype?: DType): Value {
    const operand = this.call.inputs[index];
    if (operand instanceof Value) return operand;
    if (operand === null || operand === undefined)
      return unsupported(this.call, this.opset, `input ${index} is missing`);
    const typed = this.call.inputs.find((x): x is Value => x instanceof Value && x.type?.kind === 'tensor');
    const own = typed?.type?.kind === 'tensor' ? typed.type.dtype : 'float32';
    return this.builder.operand(operand, dtype ?? own);
  }

  optional(index: number, dtype?: DType): Value | undefined {
    const operand = this.call.inputs[index];
    return operand === null || operand === undefined ? undefined : this.value(index, dtype);
  }

  int(name: string, fallback: number): number {
    return intAttribute(this.call, name, fallback);
  }

  float(name: string, fallback: number): number {
    return floatAttribute(this.call, name, fallback);
  }

  text(name: string, fallback: string): string {
    return textAttribute(this.call, name, fallback);
  }

  /** Rank of the i-th operand; `E_UNSUPPORTED` when unknown. */
  rank(index: number): number {
    const type = this.value(index).type;
    if (type?.kind !== 'tensor' || type.shape === null)
      return unsupported(this.call, this.opset, `the rank of input ${index} must be known`);
    return type.shape.length;
  }

  get wanted(): number {
    const { outputs } = this.call;
    return typeof outputs === 'number' ? outputs : outputs.length;
  }

  fail(why: string): never {
    return unsupported(this.call, this.opset, why);
  }
}

/** Builds the call from other ops. */
export function decompose(build: (parts: Parts, op: Builder['op']) => Value | Value[]): Step {
  return (call, builder, opset) => {
    const parts = new Parts(call, builder, opset);
    const result = build(parts, builder.op);
    const results = Array.isArray(result) ? result : [result];
    if (results.length < parts.wanted)
      unsupported(call, opset, `only ${results.length} of ${parts.wanted} outputs can be built`);
    return results.slice(0, parts.wanted);
  };
}
