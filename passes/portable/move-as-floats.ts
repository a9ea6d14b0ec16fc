/** Truth values and small integers that take the way of floating-point numbers through operators that move data. */

import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { isFloat } from '../../src/types.js';
import { dtypeOf } from '../../src/value-type.js';
import { definePass, type Pass } from '../pass.js';

/**
 * Wraps operators of these names in Casts where what they move is no float. float32 holds integers below 2²⁴ exactly:
 * masks, token ids, positions. Constants are left alone, because a runtime computes with them beforehand.
 */
export function moveAsFloats(ops: ReadonlySet<string>): Pass {
  return definePass({
    name: 'move-as-floats',
    summary: 'lets integers and truth values pass operators that a device has for floats only',
    *run(model: Model) {
      for (const node of [...model.graph.nodes()]) {
        const [data] = node.inputs;
        const dtype = data == null ? undefined : dtypeOf(data);
        if (node.domain !== '' || !ops.has(node.op) || data == null || dtype === undefined) continue;
        if (isFloat(dtype) || data.tensor !== undefined) continue;
        const b = new Builder(model, { provenance: 'move-as-floats' });
        const [moved] = b.emit({
          domain: '',
          op: node.op,
          inputs: [b.op.Cast(data, { to: 'float32' }), ...node.inputs.slice(1)],
          attributes: node.attributes,
          outputs: 1,
        });
        const to = b.op.Cast(moved as typeof data, { to: dtype });
        yield {
          label: `move-as-floats: ${node.label}`,
          graph: model.graph,
          redirect: [{ from: node.output(), to }],
          add: { nodes: b.nodes, at: { before: node } },
          addInitializers: b.initializers,
          remove: [node],
        };
      }
    },
  });
}
