/** An operator call before it becomes a node: operands may still be literals. */
import type { Attribute } from '../attribute.js';
import type { Operand } from './operand.js';

export interface OpCall {
  readonly domain: string;
  readonly op: string;
  readonly inputs: readonly (Operand | null)[];
  readonly attributes: ReadonlyMap<string, Attribute>;
  /** Number of outputs, or which output slots are wanted. */
  readonly outputs: number | readonly boolean[];
}

/** The call with some inputs replaced. */
export function withInputs(call: OpCall, inputs: readonly (Operand | null)[]): OpCall {
  return { ...call, inputs };
}

/** The call with attributes set (or removed, where undefined). */
export function withAttributes(
  call: OpCall,
  changes: Readonly<Record<string, Attribute | undefined>>,
): OpCall {
  const attributes = new Map(call.attributes);
  for (const [name, attribute] of Object.entries(changes))
    if (attribute === undefined) attributes.delete(name);
    else attributes.set(name, attribute);
  return { ...call, attributes };
}
