/** Opens a site and puts values into its slots, as wiring does, with formulas given in place. */
import { applyEdit } from '../../passes/edit.js';
import type { Site } from '../../passes/sites/index.js';
import { openSite } from '../../passes/sites/kinds/index.js';
import type { Stack } from '../../passes/sites/kinds/kind.js';
import { EMPTY_STACK } from '../../passes/sites/kinds/stack.js';
import type { SiteSlots, SiteViews } from '../../passes/sites/views.js';
import { Value } from '../../src/graph.js';
import { retype } from '../../src/infer/index.js';
import { encodeNumbers } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { sortTopologically } from '../../src/order.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { type DType, tensorType } from '../../src/types.js';
import { irregular } from './graphs.js';

export type Formula<S extends Site> = (
  view: SiteViews[S['kind']],
  builder: Builder,
) => Partial<Record<SiteSlots[S['kind']], Value>>;

/** Replaces slots of a site in place; returns the stack for the next method there. */
export function replace<S extends Site>(
  model: Model,
  site: S,
  formula: Formula<S>,
  stack: Stack = EMPTY_STACK,
): Stack {
  const builder = new Builder(model, { provenance: 'test' });
  const { view, slots } = openSite(builder, site, stack);
  const values: Readonly<Record<string, Value | undefined>> = formula(view as SiteViews[S['kind']], builder);
  const current = new Map(stack.current);
  const wirings = Object.keys(slots).flatMap((slot) => {
    const value = values[slot];
    const wiring = value === undefined ? undefined : slots[slot]?.(value);
    if (wiring?.replaced !== undefined) current.set(slot, wiring.replaced);
    return wiring === undefined ? [] : [wiring];
  });
  applyEdit({
    label: 'test',
    graph: site.graph,
    redirect: wirings.flatMap(({ redirects }) => redirects),
    add: { nodes: builder.nodes, at: 'end' },
    addInitializers: builder.initializers,
  });
  sortTopologically(site.graph);
  retype(
    model,
    wirings.flatMap(({ retyped }) => retyped ?? []),
  );
  return { current, inner: new Set([...stack.inner, ...builder.nodes]), folds: [] };
}

/** A constant with irregular numbers, or the given ones. */
export function parameter(
  builder: Builder,
  shape: readonly number[],
  seed: number,
  dtype: DType = 'float32',
  numbers: ArrayLike<number> = irregular(
    shape.reduce((a, b) => a * b, 1),
    seed,
  ),
): Value {
  const tensor = tensorOfBytes(dtype, shape, encodeNumbers(dtype, numbers));
  return builder.constant(tensor, `parameter_${seed}`);
}

/** A value of the graph as one more output. */
export function expose(model: Model, name: string, value: Value): void {
  const copy = new Value({ name });
  if (value.type?.kind === 'tensor') copy.type = tensorType(value.type.dtype, value.type.shape);
  const builder = new Builder(model);
  const same = builder.op.Identity(value);
  applyEdit({ label: 'expose', graph: model.graph, add: { nodes: builder.nodes, at: 'end' } });
  model.graph.addOutput(name, same);
}
