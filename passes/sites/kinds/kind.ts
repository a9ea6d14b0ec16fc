/**
 * What shared code needs of a kind of site: its sizes, its stored tensors, and the site opened for a formula. One file
 * per kind implements it; wiring and folding ask the kind and never which kind it is.
 */
import type { Node, Value } from '../../../src/graph.js';
import type { Builder } from '../../../src/ops/builder.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { Anchor, Redirect } from '../../edit.js';
import type { ColumnRange, Site, WeightStorage } from '../site.js';

/** A tensor of the model that formulas see in a layout of their own: a matrix [in, out], a vector [out]. */
export interface StoredTensor {
  /** The initializer (or output of a Constant node) that holds the numbers. */
  readonly value: Value;
  readonly storage: WeightStorage;
  /** The part of it that is the site's own, counted in columns or in slices; absent for the whole. */
  readonly columns?: ColumnRange;
  /** Dims of the site's tensor where it is packed: `read` cannot make it of the stored one. */
  readonly packed?: readonly number[];
  /** The first reader on the way to the site's op: the one that wants other numbers after a fold. */
  readonly reader: Node;
  /** The site's tensor, of the stored one. */
  read(op: Ops, stored: Value): Value;
  /** The stored tensor with the site's part replaced. */
  write(op: Ops, own: Value, stored: Value): Value;
}

/** What a slot does with its new value. */
export interface SlotWiring {
  readonly at: Anchor;
  readonly redirects: readonly Redirect[];
  /** Name, shape or order of graph inputs and outputs never changes; nodes alone do. */
  readonly replaced?: Value;
  /** Values that get another shape: once the edit is made, they and what follows are typed anew. */
  readonly retyped?: readonly Value[];
}

/** A place that a method can replace. `wire` may build nodes that restore the layout of the op. */
export type Slot = (value: Value) => SlotWiring;

/** A site ready for a formula. */
export interface OpenSite {
  /** Values are getters where building them costs nodes. */
  readonly view: object;
  readonly slots: Readonly<Record<string, Slot>>;
}

/** What the methods wired at a site before this one left behind. */
export interface Stack {
  /** Values that replaced a slot's own, by slot, as they are in the graph. */
  readonly current: ReadonlyMap<string, Value>;
  /** Nodes of these methods. */
  readonly inner: ReadonlySet<Node>;
  /** Their effect on the stored tensors, where it is not in the weights that the op reads by now. */
  readonly folds: readonly ((op: Ops, stored: StoredValuesOf) => StoredValuesOf)[];
}

export type StoredValuesOf = Readonly<Record<string, Value>>;

export interface Kind<S extends Site> {
  /** Sizes, as `params` of a method reads them (`SiteDims`). */
  dims(site: S): object;
  /** Stored tensors by slot; empty for places without weights. */
  stored(site: S): Readonly<Record<string, StoredTensor>>;
  /** The site as it is now in the graph, for one method. */
  open(builder: Builder, site: S, stack: Stack): OpenSite;
}
