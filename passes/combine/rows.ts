/**
 * A method whose parameters differ from row to row of the batch: adapters mixed in one run. Formulas are those of the
 * method, on activations [batch, time, features] and parameters with a batch axis in front.
 */
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { Dim } from '../../src/types.js';
import { rankOf, shapeOf } from '../../src/value-type.js';
import type { RowLayout } from '../methods/contract/by-row.js';
import type { AnySiteRules, Method } from '../methods/contract/method.js';
import { METHODS } from '../methods/registry.js';

/** What shared formulas need to know of the rows. */
export interface Rows {
  /** The batch axis of the model's inputs. */
  readonly batch: Dim;
  /** Its size, int64 [1]. */
  readonly size: Value;
  /** bool [batch, 1, 1]: where the method acts; undefined where it acts everywhere. */
  readonly chosen: Value | undefined;
  /** What is added to ids for tables that hold the rows of all adapters, int64 [batch, 1]. */
  offset(rows: number): Value;
}

/** Axis 0 of the model's inputs. Throws E_UNSUPPORTED where they do not agree on it. */
export function batchOf(model: Model): Dim {
  const stored = new Set(model.graph.initializers);
  const first = new Set(
    model.graph.inputs.flatMap((value) => {
      const shape = shapeOf(value);
      return stored.has(value) || shape === undefined || shape.length === 0 ? [] : [shape[0] ?? null];
    }),
  );
  const [batch = null] = first;
  if (first.size === 1 && batch !== null) return batch;
  return fail('E_UNSUPPORTED', {
    message: `The inputs of the model do not agree on a batch axis: their first dimensions are ${[...first].map((dim) => dim ?? '?').join(', ') || 'not known'}`,
    remedy: 'Choose the adapter by run instead (--by run), or export with one symbol for the batch',
  });
}

/** How a parameter reads by row. Throws E_UNSUPPORTED for methods and parameters that have no such form. */
export function layoutOf(method: Method, kind: keyof Method['sites'], role: string, path: string): RowLayout {
  return method.sites[kind]?.byRow?.params[role] ?? withoutRows(method, path, role);
}

function withoutRows({ id, sites }: Method, path: string, role?: string): never {
  const declared = Object.values(sites).some(({ byRow }) => byRow !== undefined);
  const able = METHODS.filter((one) => Object.values(one.sites).some(({ byRow }) => byRow !== undefined));
  return fail('E_UNSUPPORTED', {
    message: declared
      ? `${id} has '${role}' here, which stands in the place of a weight that all rows of a batch share`
      : `${id} changes weights, or computes with its parameters what all rows of a batch share`,
    where: path,
    remedy: `Choose the adapter by run instead (--by run); by row there are ${able.map((one) => one.id).join(', ')}`,
  });
}

/** The method with its formulas by row. */
export function byRow(method: Method, rows: Rows): Method {
  const sites = Object.fromEntries(
    Object.entries(method.sites).map(([kind, rules]) => [kind, rowRules(method, rules, rows)]),
  );
  return { ...method, sites };
}

function rowRules(method: Method, rules: AnySiteRules, rows: Rows): AnySiteRules {
  return {
    ...rules,
    attach(op, site, ...rest) {
      const formula = rules.byRow?.attach ?? rules.attach;
      const { view, original } = lifted(op, site as View, rows);
      const replaced = formula.call(rules, op, view, ...rest);
      return Object.fromEntries(
        Object.entries(replaced).map(([slot, value]) => {
          const before = original.get(slot);
          if (before === undefined) {
            if (rows.chosen !== undefined) unchosen(method.id, slot);
            return [slot, value];
          }
          const chosen =
            rows.chosen === undefined ? value : op.Where(rows.chosen, value, (view as View)[slot] as Value);
          return [slot, before.plain ? chosen : op.Reshape(chosen, op.Shape(before.value))];
        }),
      );
    },
    fold: {
      impossible: 'it acts on rows of the batch, and weights are the same for all of them',
    },
  };
}

function unchosen(id: string, slot: string): never {
  return fail('E_UNSUPPORTED', {
    message: `${id} adds ${slot} to the sequence, which rows without it cannot leave out`,
    remedy: 'Combine adapters that all have the same structure, without the entry for the base (--no-none)',
  });
}

type View = Readonly<Record<string, unknown>>;

/** Values of a site that have rows. */
const STREAMS = ['x', 'y', 'z', 'residual'];

interface Stream {
  readonly value: Value;
  /** Whether it is [batch, time, features] already. */
  readonly plain: boolean;
}

/** The site with its activations as [batch, time, features], and what they were, each as it is read. */
function lifted(op: Ops, site: View, rows: Rows): { view: object; original: ReadonlyMap<string, Stream> } {
  const original = new Map<string, Stream>();
  const view: View = Object.create(site) as View;
  const define = (name: string, get: (value: Value) => Value) => {
    let known: Value | undefined;
    Object.defineProperty(view, name, {
      enumerable: true,
      get: () => {
        const value = site[name] as Value | undefined;
        if (value === undefined) return undefined;
        known ??= get(value);
        return known;
      },
    });
  };
  const path = String(site.path);
  for (const name of STREAMS)
    if (name in site)
      define(name, (value) => {
        const plain = rankOf(value) === 3;
        original.set(name, { value, plain });
        checkRows(value, rows.batch, path);
        if (plain) return value;
        const features = shapeOf(value)?.at(-1);
        if (typeof features !== 'number') return unseen(path, `the width of ${name} is not known`);
        return op.Reshape(value, op.Concat([rows.size, [-1, features]], { axis: 0 }));
      });
  if ('ids' in site)
    define('ids', (value) => {
      checkRows(value, rows.batch, path);
      const ids = rankOf(value) === 2 ? value : op.Reshape(value, op.Concat([rows.size, [-1]], { axis: 0 }));
      return op.Add(ids, op.Cast(rows.offset(Number(site.vocab)), { to: codeOf(value) }));
    });
  return { view, original };
}

function codeOf(value: Value): number {
  return value.type?.kind === 'tensor' && value.type.dtype === 'int32' ? 6 : 7;
}

/** Rows of the batch come first: axis 0 is the batch, or the batch times something that follows it. */
function checkRows(value: Value, batch: Dim, path: string): void {
  const first = shapeOf(value)?.[0];
  if (first === batch) return;
  if (typeof first === 'number' && typeof batch === 'number' && first % batch === 0) return;
  if (typeof first === 'string' && typeof batch === 'string' && first.split(/\s*\*\s*/).includes(batch))
    return;
  unseen(path, `its first axis is ${first ?? 'not known'}, that of the batch ${batch}`);
}

function unseen(path: string, why: string): never {
  return fail('E_UNSUPPORTED', {
    message: `Rows of the batch are not seen at this module: ${why}`,
    where: path,
    remedy: 'Leave the module out, export with symbolic axes, or choose the adapter by run (--by run)',
  });
}
