/** What the schema alone says of an operator without a rule: dtypes, no shapes. */
import { formalAt, schemaHistory, schemaOf } from '../ops/schema.js';
import { DTYPE_CODES, type DType } from '../types.js';
import type { Call } from './call.js';

/** Sets the dtype of outputs that have a fixed type or share a type parameter with an input. */
export function fallbackTypes(c: Call): void {
  const { node } = c;
  const opset = c.engine.opset(node.domain);
  const schema =
    (opset === undefined ? undefined : schemaOf(node.domain, node.op, opset)) ??
    schemaHistory(node.domain, node.op).at(-1);
  if (schema === undefined) return;
  for (let index = 0; index < node.outputs.length; index++) {
    const formal = formalAt(schema.outputs, index);
    if (formal === undefined || !formal.homogeneous) continue;
    if (Object.hasOwn(DTYPE_CODES, formal.type)) {
      c.set(index, formal.type as DType, null);
      continue;
    }
    const source = node.inputs.findIndex(
      (value, i) => value !== null && formalAt(schema.inputs, i)?.type === formal.type,
    );
    if (source >= 0) c.set(index, c.dtype(source), null);
  }
}
