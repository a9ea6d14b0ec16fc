/** A method that acts where a condition holds and leaves its sites as they were otherwise. */
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { AnySiteRules, Method } from '../methods/contract/method.js';

/** `chosen` is a bool scalar. Formulas are those of the method, each result chosen against what it replaces. */
export function chosenOnly(method: Method, chosen: Value): Method {
  const sites = Object.fromEntries(
    Object.entries(method.sites).map(([kind, rules]) => [kind, gated(method.id, rules, chosen)]),
  );
  return { ...method, sites };
}

function gated(id: string, rules: AnySiteRules, chosen: Value): AnySiteRules {
  const { fold } = rules;
  return {
    ...rules,
    attach: (op, site, ...rest) =>
      select(
        op,
        chosen,
        rules.attach(op, site, ...rest),
        (slot) => (site as SlotValues)[slot] ?? unchosen(id, slot),
      ),
    fold:
      typeof fold !== 'function'
        ? fold
        : (op, stored, ...rest) => {
            const folded = fold(op, stored, ...rest);
            return typeof folded.impossible === 'string'
              ? folded
              : select(op, chosen, folded as SlotValues, (slot) => stored[slot] as Value);
          },
  };
}

type SlotValues = Readonly<Record<string, Value>>;

function select(op: Ops, chosen: Value, replaced: SlotValues, before: (slot: string) => Value): SlotValues {
  return Object.fromEntries(
    Object.entries(replaced).map(([slot, value]) => [slot, op.Where(chosen, value, before(slot))]),
  );
}

/** What adds to the sequence has nothing that it stands for when it is not chosen. */
function unchosen(id: string, slot: string): never {
  return fail('E_UNSUPPORTED', {
    message: `${id} adds ${slot} to the sequence, which cannot be left out again by a choice in the graph`,
    remedy:
      'Combine adapters that all have the same structure, without the entry for the base (--no-none), or serve each with emit --target adapted',
  });
}
