/** Truth values and small integers that take the way of floating-point numbers through operators that move data. */

import type { Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { byteSize, type DType, isFloat } from '../../src/types.js';
import { dtypeOf } from '../../src/value-type.js';
import { definePass, type Pass } from '../pass.js';

export interface MovedAsFloats {
  /** Operators with kernels for floating-point numbers only; their first input is what they move. */
  readonly floatOnly: ReadonlySet<string>;
  /** Operators with kernels for numbers, and none for truth values. */
  readonly numbersOnly: ReadonlySet<string>;
}

/** float32 holds integers up to 2²⁴ exactly: wider ones are moved in pieces of 16 bits. */
const PIECE = 2 ** 16;

/**
 * Wraps operators of these names in Casts where what they move is nothing that they have kernels for. Constants are left
 * alone, because a runtime computes with them beforehand.
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
        const to =
          byteSize(dtype, 1) <= 2 ? moveWhole(b, node, moved, dtype) : moveInPieces(b, node, data, dtype);
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

/** What `node` makes of the values, all of them seen as floats. */
function moveWhole(b: Builder, node: Node, values: readonly Value[], dtype: DType): Value {
  const casts = new Map(values.map((value) => [value, b.op.Cast(value, { to: 'float32' })]));
  return b.op.Cast(repeat(b, node, casts), { to: dtype });
}

/** x = (… + p₁)·2¹⁶ + p₀. Division of integers rounds towards zero, so that every piece has the sign of the whole. */
function moveInPieces(b: Builder, node: Node, value: Value, dtype: DType): Value {
  const size = b.scalar(PIECE, dtype);
  const pieces: Value[] = [];
  let rest = value;
  for (let i = 1; i < byteSize(dtype, 1) / 2; i++) {
    const above = b.op.Div(rest, size);
    pieces.push(b.op.Sub(rest, b.op.Mul(above, size)));
    rest = above;
  }
  const moved = (piece: Value): Value =>
    b.op.Cast(repeat(b, node, new Map([[value, b.op.Cast(piece, { to: 'float32' })]])), { to: dtype });
  return pieces.reduceRight((sum, piece) => b.op.Add(b.op.Mul(sum, size), moved(piece)), moved(rest));
}

/** The node once more, with other inputs. */
function repeat(b: Builder, node: Node, others: ReadonlyMap<Value, Value>): Value {
  const [result] = b.emit({
    domain: '',
    op: node.op,
    inputs: node.inputs.map((input) => (input === null ? null : (others.get(input) ?? input))),
    attributes: node.attributes,
    outputs: 1,
  });
  return result as Value;
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
