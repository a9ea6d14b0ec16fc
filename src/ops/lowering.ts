/** Lowers calls in their newest form to the form of the model's opset, by the steps that `lowerings/` declare. */
import { fail } from '../errors.js';
import type { Value } from '../graph.js';
import type { Builder } from './builder.js';
import { LOWERINGS } from './lowerings/index.js';
import type { OpCall } from './op-call.js';
import { schemaHistory, schemaOf } from './schema.js';

/** Emits a call in the form of the builder's opset. `E_UNSUPPORTED` names op and opset where there is no such form. */
export function lower(builder: Builder, call: OpCall): Value[] {
  const opset = builder.opset(call.domain);
  let current = call;
  for (const { before, step } of LOWERINGS.get(`${call.domain}.${call.op}`) ?? []) {
    if (opset >= before) continue;
    const result = step(current, builder, opset);
    if (Array.isArray(result)) return result;
    current = result as OpCall;
  }
  if (schemaOf(call.domain, call.op, opset) === undefined && schemaHistory(call.domain, call.op).length > 0)
    fail('E_UNSUPPORTED', {
      message: `${call.op} does not exist at opset ${opset}, and has no decomposition there`,
      remedy: 'Convert the model to a newer opset',
    });
  return builder.emit(withoutDefaults(current, opset));
}

/** Drops attributes that the older form lacks where they hold the default, which is what the older form does. */
function withoutDefaults(call: OpCall, opset: number): OpCall {
  const schema = schemaOf(call.domain, call.op, opset);
  const newest = schemaHistory(call.domain, call.op).at(-1);
  if (schema === undefined || newest === undefined) return call;
  const attributes = new Map(
    [...call.attributes].filter(([name, attribute]) => {
      const value = typeof attribute.value === 'bigint' ? Number(attribute.value) : attribute.value;
      const implied = newest.attributes.get(name)?.default;
      const same = attribute.type === 'float' ? value === Math.fround(Number(implied)) : value === implied;
      return schema.attributes.has(name) || !same;
    }),
  );
  return { ...call, attributes };
}
