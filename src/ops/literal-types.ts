/** Which dtype a literal operand gets. */
import { fail } from '../errors.js';
import { Value } from '../graph.js';
import type { DType } from '../types.js';
import type { Builder } from './builder.js';
import type { OpCall } from './op-call.js';
import type { Operand } from './operand.js';
import { allowedTypes, type Formal, formalAt, type OpSchema } from './schema.js';

/**
 * Operands as values. A literal takes, in this order: the one dtype its formal allows; the dtype of another operand of
 * the same type parameter; the dtype of the first operand, where the formal allows it; int64; float32.
 */
export function resolveOperands(
  builder: Builder,
  call: OpCall,
  schema: OpSchema | undefined,
): (Value | null)[] {
  return call.inputs.map((input, index) => {
    if (input === null || input instanceof Value) return input;
    const formal = schema === undefined ? undefined : formalAt(schema.inputs, index);
    return builder.operand(input, dtypeFor(call, schema, formal, input), formal?.name ?? 'ints');
  });
}

function dtypeOf(operand: Operand | null | undefined): DType | undefined {
  return operand instanceof Value && operand.type?.kind === 'tensor' ? operand.type.dtype : undefined;
}

function dtypeFor(
  call: OpCall,
  schema: OpSchema | undefined,
  formal: Formal | undefined,
  literal: Operand,
): DType {
  if (schema === undefined || formal === undefined)
    return fail('E_TYPE', {
      message: `A literal operand of ${call.op} has no dtype, because its schema is not known`,
      remedy: 'Use constant(), scalar() or ints()',
    });
  const allowed = allowedTypes(schema, formal);
  if (allowed.size === 1) return [...allowed][0] as DType;
  let untyped: Value | undefined;
  for (const [index, operand] of call.inputs.entries()) {
    if (!(operand instanceof Value) || formalAt(schema.inputs, index)?.type !== formal.type) continue;
    const dtype = dtypeOf(operand);
    if (dtype !== undefined) return dtype;
    untyped = operand;
  }
  if (untyped !== undefined)
    fail('E_TYPE', {
      message: `A literal operand of ${call.op} needs the dtype of '${untyped.label}', which is not known`,
      remedy: 'Infer the types of the model first, or give a typed constant',
    });
  const first = dtypeOf(call.inputs.find((operand) => dtypeOf(operand) !== undefined));
  if (first !== undefined && allowed.has(first)) return first;
  const whole = Array.isArray(literal) || typeof literal === 'bigint';
  const preferred: readonly DType[] = whole ? ['int64', 'float32'] : ['float32', 'int64', 'bool'];
  for (const dtype of preferred) if (allowed.has(dtype)) return dtype;
  return fail('E_TYPE', { message: `No dtype for the literal '${formal.name}' of ${call.op}` });
}
