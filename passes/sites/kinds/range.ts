/**
 * A column range of a value that a fused op takes apart inside. The adapted graph takes it apart in front of the op and
 * puts it together again: `Concat(…, own, …)`. All ranges of one value share that Concat.
 */
import type { Node, Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import { sizeAt } from '../../../src/value-type.js';
import type { PackedRange } from '../site.js';
import type { Slot } from './kind.js';
import { at } from './weights.js';

export interface OpenRange {
  /** The site's own columns, as the op reads them by now. */
  readonly value: () => Value;
  readonly slot: Slot;
}

export function openRange(op: Ops, { node, index, widths, part }: PackedRange): OpenRange {
  const whole = node.input(index);
  const joined = joinedBy(whole, widths);
  if (joined !== undefined)
    return {
      value: () => joined.input(part),
      slot: (value) => ({
        at: { before: joined },
        redirects: [{ from: joined.input(part), to: value, only: at(joined, part) }],
        replaced: value,
      }),
    };
  let pieces: readonly Value[] | undefined;
  const taken = (): readonly Value[] => {
    pieces ??= op.Split(whole, widths, { axis: -1 }, widths.length);
    return pieces;
  };
  return {
    value: () => taken()[part] as Value,
    slot: (value) => ({
      at: { before: node },
      redirects: [
        {
          from: whole,
          to: op.Concat(
            taken().map((piece, i) => (i === part ? value : piece)),
            { axis: -1 },
          ),
          only: at(node, index),
        },
      ],
      replaced: value,
    }),
  };
}

/** The Concat that puts ranges of these widths together. */
function joinedBy(whole: Value, widths: readonly number[]): Node | undefined {
  const producer = whole.producer;
  if (producer?.qualifiedOp !== 'Concat' || producer.inputs.length !== widths.length) return undefined;
  return widths.every((width, i) => sizeAt(producer.inputs[i], -1) === width) ? producer : undefined;
}
