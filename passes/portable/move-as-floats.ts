/** Truth values and small integers that take the way of floating-point numbers through operators that move data. */

import type { Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { isFloat } from '../../src/types.js';
import { dtypeOf } from '../../src/value-type.js';
import { definePass, type Pass } from '../pass.js';

export interface MovedAsFloats {
  /** Operators with kernels for floating-point numbers only; their first input is what they move. */
  readonly floatOnly: ReadonlySet<string>;
  /** Operators with kernels for numbers, and none for truth values. */
  readonly numbersOnly: ReadonlySet<string>;
}

/**
 * Wraps operators of these names in Casts where what they move is nothing that they have kernels for. float32 holds
 * integers below 2²⁴ exactly: masks, token ids, positions. Constants are left alone, because a runtime computes with them
 * beforehand.
 */
export function moveAsFloats(ops: MovedAsFloats): Pass {
  return definePass({
    name: 'move-as-floats',
    summary: 'lets integers and truth values pass operators that a device has for floats only',
    *run(model: Model) {
      for (const node of [...model.graph.nodes()]) {
        const moved = movedInputs(node, ops);
        const [data] = moved;
        const dtype = dtypeOf(data);
        if (data === undefined || dtype === undefined) continue;
        const b = new Builder(model, { provenance: 'move-as-floats' });
        const casts = new Map(moved.map((value) => [value, b.op.Cast(value, { to: 'float32' })]));
        const [result] = b.emit({
          domain: '',
          op: node.op,
          inputs: node.inputs.map((input) => (input === null ? null : (casts.get(input) ?? input))),
          attributes: node.attributes,
          outputs: 1,
        });
        const to = b.op.Cast(result as Value, { to: dtype });
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

/** The inputs that have to take the way of floats; none where the operator has a kernel, or is computed beforehand. */
function movedInputs(node: Node, { floatOnly, numbersOnly }: MovedAsFloats): Value[] {
  if (node.domain !== '') return [];
  const [first] = node.inputs;
  const dtype = dtypeOf(first);
  const moved =
    floatOnly.has(node.op) && first != null && dtype !== undefined && !isFloat(dtype)
      ? [first]
      : numbersOnly.has(node.op)
        ? node.inputs.filter((input): input is Value => dtypeOf(input) === 'bool')
        : [];
  return moved.every(({ tensor }) => tensor !== undefined) ? [] : moved;
}
