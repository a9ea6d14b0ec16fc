/**
 * The graph IR. Edges are object references (`Value`), names are only hints or pins: they are minted when text or a
 * file is written (`src/names.ts`). A node counts as a user of its inputs from the moment it is attached to a graph
 * and not before, so that `y' = y + f(y)` can be built detached and wired in by one redirect of `y`.
 */
import { type Attribute, graphsOf } from './attribute.js';
import { fail } from './errors.js';
import type { Tensor } from './tensor.js';
import type { ValueType } from './types.js';

/** A place where a value is read: an input slot of an attached node, or an output slot of a graph. */
export type Use =
  | { readonly kind: 'node'; readonly node: Node; readonly index: number }
  | { readonly kind: 'output'; readonly graph: Graph; readonly output: Output };

/** Optional texts that ONNX lets every object carry. */
export interface Annotations {
  doc?: string;
  readonly metadata: Map<string, string>;
}

let serial = 0;

/** One tensor (or sequence, …) that flows through the graph. */
export class Value implements Annotations {
  readonly id = ++serial;
  /** The name in the file; kept when written. Undefined for values made by passes. */
  name: string | undefined;
  /** Suggestion for the minted name of an unnamed value. */
  hint: string;
  /** Written by the decoder, the builder and `src/infer`; never edited by passes. */
  type: ValueType | undefined;
  doc?: string;
  readonly metadata = new Map<string, string>();
  /** The node that computes the value; undefined for inputs and initializers. */
  producer: Node | undefined;
  /** Payload of an initializer (or default of an input that is also an initializer, IR 3). */
  tensor: Tensor | undefined;
  readonly uses = new Set<Use>();

  constructor(init: { name?: string; hint?: string; type?: ValueType; tensor?: Tensor } = {}) {
    this.name = init.name;
    this.hint = init.hint ?? init.name ?? 'v';
    this.type = init.type;
    this.tensor = init.tensor;
  }

  /** Name for messages: the pinned name or the hint. */
  get label(): string {
    return this.name ?? `%${this.hint}`;
  }

  /** Attached nodes that read this value, each once, in no particular order. */
  get users(): Set<Node> {
    const nodes = new Set<Node>();
    for (const use of this.uses) if (use.kind === 'node') nodes.add(use.node);
    return nodes;
  }
}

export interface NodeInit {
  readonly op: string;
  readonly domain?: string;
  readonly overload?: string;
  readonly name?: string;
  readonly inputs: readonly (Value | null)[];
  readonly attributes?: Iterable<readonly [string, Attribute]>;
  readonly outputs: readonly (Value | null)[];
}

/** One operator call. `null` stands for an omitted optional input or output. */
export class Node implements Annotations {
  readonly id = ++serial;
  readonly op: string;
  /** '' is ai.onnx. */
  readonly domain: string;
  readonly overload: string;
  name: string | undefined;
  doc?: string;
  readonly metadata = new Map<string, string>();
  readonly attributes: Map<string, Attribute>;
  readonly outputs: readonly (Value | null)[];
  /** The graph the node is attached to. */
  graph: Graph | undefined;
  /** Which pass or method made the node; printed as a comment. */
  provenance: string | undefined;
  /** Intrusive list links, maintained by `Graph`. */
  prev: Node | undefined;
  next: Node | undefined;
  readonly #inputs: (Value | null)[];
  readonly #uses: (Use | undefined)[];

  constructor(init: NodeInit) {
    this.op = init.op;
    this.domain = init.domain ?? '';
    this.overload = init.overload ?? '';
    this.name = init.name;
    this.#inputs = [...init.inputs];
    this.#uses = this.#inputs.map(() => undefined);
    this.attributes = new Map(init.attributes ?? []);
    this.outputs = init.outputs;
    for (const output of init.outputs) if (output !== null) output.producer = this;
  }

  get inputs(): readonly (Value | null)[] {
    return this.#inputs;
  }

  /** `MatMul` or `com.microsoft.FusedMatMul`: the operator as people write it. */
  get qualifiedOp(): string {
    return this.domain === '' ? this.op : `${this.domain}.${this.op}`;
  }

  /** Name for messages. */
  get label(): string {
    const name = this.name ?? this.outputs.find((o) => o !== null)?.label ?? `#${this.id}`;
    return `${this.qualifiedOp} '${name}'`;
  }

  /** The i-th input, which must be present. */
  input(index: number): Value {
    return (
      this.#inputs[index] ??
      fail('E_INVALID_GRAPH', { message: `Input ${index} of ${this.op} is missing`, where: this.label })
    );
  }

  /** The i-th output, which must be present. */
  output(index = 0): Value {
    return (
      this.outputs[index] ??
      fail('E_INVALID_GRAPH', { message: `Output ${index} of ${this.op} is missing`, where: this.label })
    );
  }

  /** Subgraphs of control-flow ops. */
  get subgraphs(): readonly Graph[] {
    const graphs: Graph[] = [];
    for (const attribute of this.attributes.values()) graphs.push(...graphsOf(attribute));
    return graphs;
  }

  setInput(index: number, value: Value | null): void {
    if (this.graph !== undefined) this.#unregister(index);
    this.#inputs[index] = value;
    if (this.graph !== undefined) this.#register(index);
  }

  /** Called by `Graph` when the node enters it. */
  attach(graph: Graph): void {
    this.graph = graph;
    for (let i = 0; i < this.#inputs.length; i++) this.#register(i);
  }

  /** Called by `Graph` when the node leaves it. */
  detach(): void {
    for (let i = 0; i < this.#inputs.length; i++) this.#unregister(i);
    this.graph = undefined;
  }

  #register(index: number): void {
    const value = this.#inputs[index];
    if (value === null || value === undefined) return;
    const use: Use = { kind: 'node', node: this, index };
    this.#uses[index] = use;
    value.uses.add(use);
  }

  #unregister(index: number): void {
    const use = this.#uses[index];
    if (use !== undefined) this.#inputs[index]?.uses.delete(use);
    this.#uses[index] = undefined;
  }
}

/** A return slot of a graph: the public name stays when the value behind it is replaced. */
export class Output {
  readonly graph: Graph;
  readonly name: string | undefined;
  /** Declared type of the slot, as the file had it. */
  type: ValueType | undefined;
  doc?: string;
  readonly metadata = new Map<string, string>();
  #value: Value;
  readonly #use: Use;

  constructor(graph: Graph, name: string | undefined, value: Value) {
    this.graph = graph;
    this.name = name;
    this.type = value.type;
    this.#value = value;
    this.#use = { kind: 'output', graph, output: this };
    value.uses.add(this.#use);
  }

  get value(): Value {
    return this.#value;
  }

  set value(value: Value) {
    this.#value.uses.delete(this.#use);
    this.#value = value;
    value.uses.add(this.#use);
  }

  /** Called by `Graph` when the slot is dropped. */
  release(): void {
    this.#value.uses.delete(this.#use);
  }
}

/** A list of nodes in execution order with inputs, initializers and return slots; also the body of If, Loop, functions. */
export class Graph implements Annotations {
  name = '';
  doc?: string;
  readonly metadata = new Map<string, string>();
  readonly inputs: Value[] = [];
  /** Values with a payload, in file order; a value may be an input too (overridable initializer). */
  readonly initializers = new Set<Value>();
  readonly outputs: Output[] = [];
  #first: Node | undefined;
  #last: Node | undefined;
  #size = 0;

  get nodeCount(): number {
    return this.#size;
  }
  get firstNode(): Node | undefined {
    return this.#first;
  }
  get lastNode(): Node | undefined {
    return this.#last;
  }

  /** Nodes in order. Nodes inserted behind the current one while iterating are visited; the current one may be removed. */
  *nodes(): IterableIterator<Node> {
    let node = this.#first;
    while (node !== undefined) {
      const next = node.next;
      yield node;
      node = node.graph === this ? node.next : next;
    }
  }

  *nodesReversed(): IterableIterator<Node> {
    let node = this.#last;
    while (node !== undefined) {
      const prev = node.prev;
      yield node;
      node = node.graph === this ? node.prev : prev;
    }
  }

  addInput(value: Value): Value {
    this.inputs.push(value);
    return value;
  }

  addInitializer(value: Value): Value {
    if (value.tensor === undefined)
      fail('E_INVALID_GRAPH', { message: 'An initializer needs a payload', where: value.label });
    this.initializers.add(value);
    return value;
  }

  addOutput(name: string | undefined, value: Value): Output {
    const output = new Output(this, name, value);
    this.outputs.push(output);
    return output;
  }

  /** Drops all return slots (training targets set their own). */
  clearOutputs(): void {
    for (const output of this.outputs) output.release();
    this.outputs.length = 0;
  }

  append(node: Node): Node {
    return this.#link(node, this.#last, undefined);
  }

  insertBefore(anchor: Node, node: Node): Node {
    return this.#link(node, anchor.prev, anchor);
  }

  insertAfter(anchor: Node, node: Node): Node {
    return this.#link(node, anchor, anchor.next);
  }

  /** Takes the node out. Its outputs must be unused. */
  remove(node: Node): void {
    if (node.graph !== this)
      fail('E_INVALID_GRAPH', { message: 'Node is not in this graph', where: node.label });
    for (const output of node.outputs)
      if (output !== null && output.uses.size > 0)
        fail('E_INVALID_GRAPH', {
          message: `Removed node still has users of '${output.label}'`,
          where: node.label,
        });
    if (node.prev === undefined) this.#first = node.next;
    else node.prev.next = node.next;
    if (node.next === undefined) this.#last = node.prev;
    else node.next.prev = node.prev;
    node.prev = undefined;
    node.next = undefined;
    node.detach();
    this.#size--;
  }

  /** Puts the nodes into another order, which must hold every node of the graph once. */
  reorder(order: readonly Node[]): void {
    if (new Set(order).size !== this.#size || order.some((node) => node.graph !== this))
      fail('E_INVALID_GRAPH', {
        message: 'An order must name every node of the graph once',
        where: this.name,
      });
    order.forEach((node, i) => {
      node.prev = order[i - 1];
      node.next = order[i + 1];
    });
    this.#first = order[0];
    this.#last = order.at(-1);
  }

  #link(node: Node, prev: Node | undefined, next: Node | undefined): Node {
    if (node.graph !== undefined)
      fail('E_INVALID_GRAPH', { message: 'Node is already in a graph', where: node.label });
    node.prev = prev;
    node.next = next;
    if (prev === undefined) this.#first = node;
    else prev.next = node;
    if (next === undefined) this.#last = node;
    else next.prev = node;
    node.attach(this);
    this.#size++;
    return node;
  }
}

/** Redirects uses of one value to another. `filter` limits which uses move; default all. */
export function redirectUses(from: Value, to: Value, filter: (use: Use) => boolean = () => true): number {
  let moved = 0;
  for (const use of [...from.uses]) {
    if (!filter(use)) continue;
    if (use.kind === 'node') use.node.setInput(use.index, to);
    else use.output.value = to;
    moved++;
  }
  return moved;
}

/** All graphs nested in `graph`, itself first, depth first. */
export function* walkGraphs(graph: Graph): IterableIterator<Graph> {
  yield graph;
  for (const node of graph.nodes()) for (const sub of node.subgraphs) yield* walkGraphs(sub);
}

/** All nodes of `graph` and of the graphs nested in it. */
export function* walkNodes(graph: Graph): IterableIterator<Node> {
  for (const g of walkGraphs(graph)) yield* g.nodes();
}
