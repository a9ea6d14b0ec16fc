/**
 * Computes activations twice to hold fewer: of every group of the forward pass but the last, only what enters stays
 * alive, and the backward pass reads a copy of the group that runs when its turn comes (Chen et al., arXiv:1604.06174).
 * The copy reads what enters through x' = Where(c, x, x), where the condition c is made of gradients of the group
 * behind: so a runtime neither merges the copy with the original nor starts it early.
 */
import { Cloner } from '../../src/clone.js';
import type { Graph, Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { valuesRead } from '../../src/order.js';
import { isFloat } from '../../src/types.js';
import { dtypeOf } from '../../src/value-type.js';
import { applyEdit } from '../edit.js';
import { nominalSizes, ValueSizes } from '../memory/sizes.js';
import { groupSegments, type SegmentCost } from './grouping.js';
import { isRandom } from './random.js';
import { type Segment, segmentsOf } from './segments.js';

export interface RecomputeOptions {
  /** How many groups at most; by default as many as need least memory. */
  readonly groups?: number;
}

export interface Recomputed {
  /** Groups of the forward pass, the one that is not recomputed included. */
  readonly groups: number;
  /** Nodes that are computed twice. */
  readonly nodes: number;
}

/** Smaller values are cheaper to keep. */
const KEPT_BYTES = 4096;

/**
 * Rewrites a graph whose backward pass is appended to its forward pass. `forward`: the nodes of the latter, in graph
 * order; `trained`: the inputs that gradients are taken by. A forward pass without a cut stays as it is.
 */
export function recompute(
  model: Model,
  forward: readonly Node[],
  trained: readonly Value[],
  options: RecomputeOptions = {},
): Recomputed {
  const { graph } = model;
  const flow = dataFlow(graph, forward, trained);
  const sizes = new ValueSizes(nominalSizes(graph));
  const inForward = new Set(forward);
  const backward = [...graph.nodes()].filter((node) => !inForward.has(node));
  const read = new Set(backward.flatMap((node) => [...valuesRead(node)]));
  const segments = segmentsOf(forward, (value) => flow.batch.has(value) && flow.trained.has(value));
  // Random numbers are kept: drawn again, they would be others than those that the loss was computed with.
  const worthwhile = (value: Value) =>
    flow.batch.has(value) &&
    (sizes.bytes(value) ?? Number.POSITIVE_INFINITY) > KEPT_BYTES &&
    !(value.producer !== undefined && isRandom(value.producer));
  const starts = groupSegments(
    segments.map((segment) => costOf(segment, read, worthwhile, sizes)),
    options.groups,
  );
  const groups = starts.map((start, i) => joined(segments.slice(start, starts[i + 1])));
  const entries = new Set(groups.flatMap(({ entry }) => (entry === undefined ? [] : [entry])));
  const [last, ...before] = [...groups].reverse();
  if (last === undefined) return { groups: 0, nodes: 0 };
  const order = new BackwardOrder(backward, last);
  let copied = 0;
  // From the last to the first: the order in which the backward pass comes to them.
  for (const group of before)
    copied += recomputeGroup(model, group, order, { read, worthwhile, entries, flow, sizes });
  return { groups: groups.length, nodes: copied };
}

interface DataFlow {
  /** Values that depend on an input of the graph that is not trained. */
  readonly batch: ReadonlySet<Value>;
  /** Values that depend on what is trained. */
  readonly trained: ReadonlySet<Value>;
}

function dataFlow(graph: Graph, forward: readonly Node[], trained: readonly Value[]): DataFlow {
  const ofTrained = new Set(trained);
  const ofBatch = new Set(
    graph.inputs.filter((input) => input.tensor === undefined && !ofTrained.has(input)),
  );
  for (const node of forward)
    for (const value of valuesRead(node))
      for (const set of [ofBatch, ofTrained])
        if (set.has(value)) for (const output of node.outputs) if (output !== null) set.add(output);
  return { batch: ofBatch, trained: ofTrained };
}

function costOf(
  { nodes, entry }: Segment,
  read: ReadonlySet<Value>,
  worthwhile: (value: Value) => boolean,
  sizes: ValueSizes,
): SegmentCost {
  let inside = 0;
  for (const node of nodes)
    for (const output of node.outputs)
      if (output !== null && read.has(output) && worthwhile(output)) inside += sizes.bytes(output) ?? 0;
  return { entry: entry === undefined ? 0 : (sizes.bytes(entry) ?? 0), inside };
}

function joined(segments: readonly Segment[]): Segment {
  return { nodes: segments.flatMap(({ nodes }) => nodes), entry: segments[0]?.entry };
}

/** The backward pass in its order. */
class BackwardOrder {
  readonly nodes: readonly Node[];
  readonly #position: ReadonlyMap<Node, number>;
  /** Gradients: what depends on the end of the forward pass. */
  readonly #gradients: Set<Value>;
  readonly #used = new Set<Value>();

  constructor(nodes: readonly Node[], end: Segment) {
    this.nodes = nodes;
    this.#position = new Map(nodes.map((node, i) => [node, i]));
    this.#gradients = new Set(
      end.nodes.flatMap(({ outputs }) => outputs.filter((output) => output !== null)),
    );
    for (const node of nodes)
      if ([...valuesRead(node)].some((value) => this.#gradients.has(value)))
        for (const output of node.outputs) if (output !== null) this.#gradients.add(output);
  }

  has(node: Node): boolean {
    return this.#position.has(node);
  }

  /** The first node that reads one of the values. */
  first(values: ReadonlySet<Value>): Node | undefined {
    return this.nodes.find((node) => node.inputs.some((input) => input !== null && values.has(input)));
  }

  /** What the backward pass has made before `node` and reads from there on, or gives out; each is given once. */
  frontier(node: Node): Value[] {
    const stop = this.#position.get(node) ?? 0;
    const found: Value[] = [];
    for (const before of this.nodes.slice(0, stop))
      for (const output of before.outputs) {
        if (output === null || !this.#gradients.has(output) || this.#used.has(output)) continue;
        const dtype = dtypeOf(output);
        if (dtype === undefined || !isFloat(dtype)) continue;
        const later = [...output.uses].some(
          (use) => use.kind === 'output' || (this.#position.get(use.node) ?? stop) >= stop,
        );
        if (!later && output.uses.size > 0) continue;
        this.#used.add(output);
        found.push(output);
      }
    return found;
  }
}

interface Surroundings {
  readonly read: ReadonlySet<Value>;
  readonly worthwhile: (value: Value) => boolean;
  /** Kept: what enters the groups. */
  readonly entries: ReadonlySet<Value>;
  readonly flow: DataFlow;
  readonly sizes: ValueSizes;
}

/** Puts a copy of what the backward pass needs of a group before its first reader there; the number of nodes copied. */
function recomputeGroup(model: Model, group: Segment, order: BackwardOrder, around: Surroundings): number {
  const { read, worthwhile, entries, flow } = around;
  const own = new Set(group.nodes);
  const inside = (value: Value) =>
    value.producer !== undefined && own.has(value.producer) && worthwhile(value) && !entries.has(value);
  const wanted = new Set<Value>();
  for (const node of group.nodes)
    for (const output of node.outputs)
      if (output !== null && read.has(output) && inside(output)) wanted.add(output);
  const first = order.first(wanted);
  if (first === undefined) return 0;
  const frontier = order.frontier(first);
  if (frontier.length === 0) return 0;

  const nodes = closure(group.nodes, wanted, inside);
  const b = new Builder(model, { provenance: 'recompute' });
  const condition = always(b, frontier);
  const cloner = new Cloner({ names: 'hint' });
  const late = (value: Value) => {
    const copy = b.op.Where(condition, value, value);
    copy.type = value.type;
    cloner.values.set(value, copy);
    fresh.add(value);
  };
  // Originals whose copy cannot run early.
  const fresh = new Set<Value>();
  const copies: Node[] = [];
  if (group.entry !== undefined && nodes.some((node) => [...valuesRead(node)].includes(group.entry as Value)))
    late(group.entry);
  for (const node of nodes) {
    const reads = [...valuesRead(node)];
    if (!reads.some((value) => fresh.has(value))) {
      const candidates = reads.filter((value) => flow.batch.has(value) && selectable(value));
      candidates.sort((a, c) => (around.sizes.bytes(a) ?? 0) - (around.sizes.bytes(c) ?? 0));
      if (candidates[0] !== undefined) late(candidates[0]);
    }
    const copy = cloner.node(node);
    copy.name = undefined;
    copy.provenance = 'recompute';
    copies.push(copy);
    for (const output of node.outputs) if (output !== null) fresh.add(output);
  }
  applyEdit({
    label: `recompute ${nodes.length} nodes`,
    graph: model.graph,
    redirect: [...wanted].map((from) => ({
      from,
      to: cloner.value(from),
      only: (use) => use.kind === 'node' && order.has(use.node),
    })),
    add: { nodes: [...b.nodes, ...copies], at: { before: first } },
    addInitializers: b.initializers,
  });
  return nodes.length;
}

/** What every provider has a kernel of Where for. */
function selectable(value: Value): boolean {
  const dtype = dtypeOf(value);
  return dtype !== undefined && (isFloat(dtype) || dtype === 'int32' || dtype === 'int64');
}

/** Nodes of a group that the wanted values come from, in graph order. */
function closure(
  nodes: readonly Node[],
  wanted: ReadonlySet<Value>,
  inside: (value: Value) => boolean,
): Node[] {
  const needed = new Set(wanted);
  const found: Node[] = [];
  for (const node of [...nodes].reverse()) {
    if (!node.outputs.some((output) => output !== null && needed.has(output))) continue;
    found.push(node);
    for (const value of valuesRead(node)) if (inside(value)) needed.add(value);
  }
  return found.reverse();
}

/** A condition that holds once all of `values` are there: s ≥ s or not, both branches are the same. */
function always(b: Builder, values: readonly Value[]): Value {
  const { op } = b;
  // The first element, or 0 of a value that has none.
  const elements = values.map((value) =>
    op.Cast(op.ReduceSum(op.Slice(op.Reshape(value, [-1]), [0], [1], [0]), null, { keepdims: 0 }), {
      to: 'float32',
    }),
  );
  const sum = elements.reduce((a, c) => op.Add(a, c));
  return op.GreaterOrEqual(sum, sum);
}
