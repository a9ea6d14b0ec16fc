/**
 * Names for a whole model, minted when text or a file is written. Output slots claim their public names first, pinned
 * values keep theirs, and the rest gets `hint`, `hint_1`, … free of collisions across the graph and all graphs nested
 * in it. Bodies of local functions are scopes of their own. The result depends on the structure of the model only.
 */
import { fail } from './errors.js';
import type { Graph, Node, Output, Value } from './graph.js';
import { walkGraphs } from './graph.js';
import type { Model } from './model.js';

/** A slot whose public name cannot be the name of the value behind it: it is written as `name = Identity(value)`. */
export interface Alias {
  readonly graph: Graph;
  readonly output: Output;
  readonly value: Value;
  /** Name of the slot, and of the output of the Identity. */
  readonly name: string;
  /** Name for the Identity node. */
  readonly nodeName: string;
}

export interface Names {
  value(value: Value): string;
  /** The node's own name, or a minted one. */
  node(node: Node): string;
  /** Public name of a slot; equals the name of the value behind it unless the slot is among `aliases`. */
  output(output: Output): string;
  /** In order of graphs and slots. An Identity per entry belongs at the end of `graph`. */
  readonly aliases: readonly Alias[];
}

/** Assigns a name to every value and node of the model, nested graphs and function bodies included. */
export function assignNames(model: Model): Names {
  const state = new State();
  const nodeNames = new Pool();
  for (const root of [model.graph, ...model.functions.map((f) => f.graph)]) {
    const graphs = [...walkGraphs(root)];
    new Scope(root, graphs, state).assign();
    for (const graph of graphs)
      for (const node of graph.nodes()) if (node.name !== undefined) nodeNames.reserve(node.name);
    for (const graph of graphs)
      for (const node of graph.nodes())
        state.nodes.set(node, node.name ?? nodeNames.mint(nodeHint(node.provenance, node.op)));
  }
  const aliases = state.aliases.map((alias) => ({
    ...alias,
    nodeName: nodeNames.mint(nodeHint(undefined, 'Identity')),
  }));
  const late = new Pool();
  return {
    aliases,
    value: (value) => {
      let name = state.values.get(value);
      if (name === undefined) {
        // A value that is not part of the model (a broken graph that is printed, say) still needs some name.
        for (const used of state.values.values()) late.reserve(used);
        name = late.mint(value.name ?? value.hint);
        state.values.set(value, name);
      }
      return name;
    },
    node: (node) => state.nodes.get(node) ?? node.name ?? nodeHint(node.provenance, node.op),
    output: (output) => state.outputs.get(output) ?? output.name ?? output.value.label,
  };
}

/** Pins the names that nodes and values made by passes would get in a file: from then on the model prints as the file does. */
export function pinNames(model: Model): void {
  const names = assignNames(model);
  for (const root of [model.graph, ...model.functions.map((f) => f.graph)])
    for (const graph of walkGraphs(root)) {
      for (const value of graph.initializers) value.name ??= names.value(value);
      for (const node of graph.nodes()) {
        if (node.name === undefined && node.provenance !== undefined) node.name = names.node(node);
        for (const value of node.outputs) if (value !== null) value.name ??= names.value(value);
      }
    }
}

function nodeHint(provenance: string | undefined, op: string): string {
  return provenance === undefined ? op : `${provenance}/${op}`;
}

class State {
  readonly values = new Map<Value, string>();
  readonly nodes = new Map<Node, string>();
  readonly outputs = new Map<Output, string>();
  readonly aliases: Omit<Alias, 'nodeName'>[] = [];
}

/** Names in use, and the next suffix to try for each hint, so that minting n names costs n steps. */
class Pool {
  readonly #used = new Set<string>();
  readonly #next = new Map<string, number>();

  reserve(name: string): void {
    this.#used.add(name);
  }

  mint(hint: string): string {
    const base = hint === '' ? 'v' : hint;
    let suffix = this.#next.get(base) ?? 0;
    let name: string;
    do {
      name = suffix === 0 ? base : `${base}_${suffix}`;
      suffix++;
    } while (this.#used.has(name));
    this.#next.set(base, suffix);
    this.#used.add(name);
    return name;
  }
}

/** One root graph with everything nested in it. */
class Scope {
  readonly #home = new Map<Value, Graph>();
  readonly #parent = new Map<Graph, Graph>();
  readonly #owners = new Map<Graph, Map<string, Value>>();
  readonly #pool = new Pool();
  readonly #fixed = new Set<Value>();

  constructor(
    readonly root: Graph,
    readonly graphs: readonly Graph[],
    readonly state: State,
  ) {}

  assign(): void {
    for (const graph of this.graphs) this.#index(graph);
    for (const graph of this.graphs) this.#claimOutputs(graph);
    const pending: Value[] = [];
    for (const graph of this.graphs) {
      for (const value of definitions(graph)) {
        if (this.#home.get(value) !== graph || this.state.values.has(value)) continue;
        if (
          value.name !== undefined &&
          (this.#keepsPin(graph, value, value.name) || this.#supersedes(graph, value))
        )
          this.#own(graph, value, value.name);
        else pending.push(value);
      }
    }
    for (const value of pending) this.state.values.set(value, this.#pool.mint(value.name ?? value.hint));
    for (const graph of this.graphs) {
      for (const output of graph.outputs) {
        if (this.state.outputs.has(output)) continue;
        const name = this.state.values.get(output.value);
        if (name === undefined)
          fail('E_INVALID_GRAPH', {
            message: 'An output slot reads a value that nothing in the model defines',
            where: output.name ?? output.value.label,
          });
        this.state.outputs.set(output, name);
      }
    }
  }

  /** Records where each value is defined and which names are taken anywhere. */
  #index(graph: Graph): void {
    this.#owners.set(graph, new Map());
    for (const value of [...graph.inputs, ...graph.initializers]) {
      this.#home.set(value, graph);
      this.#fixed.add(value);
      if (value.name !== undefined) this.#pool.reserve(value.name);
    }
    for (const node of graph.nodes()) {
      for (const value of node.outputs) {
        if (value === null) continue;
        this.#home.set(value, graph);
        if (value.name !== undefined) this.#pool.reserve(value.name);
      }
      for (const value of node.inputs)
        if (value !== null && value.name !== undefined) this.#pool.reserve(value.name);
      for (const sub of node.subgraphs) this.#parent.set(sub, graph);
    }
    for (const output of graph.outputs) if (output.name !== undefined) this.#pool.reserve(output.name);
  }

  #claimOutputs(graph: Graph): void {
    const slots = new Map<string, Value>();
    const inputNames = new Map(graph.inputs.map((input) => [input.name, input]));
    for (const output of graph.outputs) {
      const { name, value } = output;
      if (name === undefined) continue;
      const other = slots.get(name) ?? inputNames.get(name);
      if (other !== undefined && other !== value)
        fail('E_INVALID_GRAPH', {
          message: `The name '${name}' is asked for by an output and by another ${slots.has(name) ? 'output' : 'input'} at once`,
          where: graph.name === '' ? `output '${name}'` : `output '${name}' of graph '${graph.name}'`,
          remedy: 'Rename one of them.',
        });
      slots.set(name, value);
      const claimed = this.state.values.get(value);
      const pinnedElsewhere = this.#fixed.has(value) && value.name !== undefined && value.name !== name;
      const captured = this.#home.get(value) !== graph && value.name !== name;
      this.state.outputs.set(output, name);
      if (pinnedElsewhere || captured || (claimed !== undefined && claimed !== name))
        this.state.aliases.push({ graph, output, value, name });
      else if (claimed === undefined && this.#home.get(value) === graph) this.#own(graph, value, name);
    }
    for (const alias of this.state.aliases)
      if (alias.graph === graph) this.#owners.get(graph)?.set(alias.name, alias.value);
  }

  #own(graph: Graph, value: Value, name: string): void {
    this.state.values.set(value, name);
    this.#owners.get(graph)?.set(name, value);
  }

  /**
   * Sibling graphs may use one name for different values. A nested graph may hide a pinned outer name, as some files
   * do, as long as nothing inside reads the hidden value.
   */
  #keepsPin(graph: Graph, value: Value, name: string): boolean {
    if (name === '' || this.#owners.get(graph)?.has(name)) return false;
    for (let outer = this.#parent.get(graph); outer !== undefined; outer = this.#parent.get(outer)) {
      const hidden = this.#owners.get(outer)?.get(name);
      if (hidden === undefined || hidden === value) continue;
      if (hidden.name !== name || this.#usedWithin(hidden, graph)) return false;
    }
    return true;
  }

  /**
   * Some files define a name by several Constant nodes, of which the last counts (so ONNX Runtime reads them). The
   * dead ones share the name as long as nothing reads them.
   */
  #supersedes(graph: Graph, value: Value): boolean {
    const earlier = this.#owners.get(graph)?.get(value.name ?? '');
    return earlier !== undefined && earlier.uses.size === 0 && isConstant(earlier) && isConstant(value);
  }

  #usedWithin(value: Value, graph: Graph): boolean {
    for (const use of value.uses) {
      let place: Graph | undefined = use.kind === 'node' ? use.node.graph : use.graph;
      for (; place !== undefined; place = this.#parent.get(place)) if (place === graph) return true;
    }
    return false;
  }
}

function isConstant(value: Value): boolean {
  return value.producer?.op === 'Constant' && value.producer.domain === '';
}

function* definitions(graph: Graph): IterableIterator<Value> {
  yield* graph.inputs;
  yield* graph.initializers;
  for (const node of graph.nodes()) for (const value of node.outputs) if (value !== null) yield value;
}
