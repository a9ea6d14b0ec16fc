/** Copies of graphs and models: structure is new, payload handles (`TensorData`) are shared. */
import type { Attribute } from './attribute.js';
import { type Annotations, Graph, Node, Value } from './graph.js';
import { Model } from './model.js';
import { inheritOrigin } from './onnx/origin.js';

export interface ClonedModel {
  readonly model: Model;
  /** Original value to its copy, nested graphs and functions included. */
  readonly values: Map<Value, Value>;
  /** Original node to its copy, nested graphs and functions included. */
  readonly nodes: Map<Node, Node>;
}

/**
 * Copies a model: nodes, subgraphs with their captures, functions, metadata, docs, types, provenance.
 * Payloads are shared, so the copy costs the memory of the graph and not of the weights.
 */
export function cloneModel(model: Model): ClonedModel {
  const cloner = new Cloner({ outer: 'copy' });
  const copy = new Model(cloner.graph(model.graph));
  copy.irVersion = model.irVersion;
  copy.producerName = model.producerName;
  copy.producerVersion = model.producerVersion;
  copy.domain = model.domain;
  copy.modelVersion = model.modelVersion;
  if (model.doc !== undefined) copy.doc = model.doc;
  copy.path = model.path;
  for (const [domain, version] of model.opsets) copy.opsets.set(domain, version);
  for (const [key, value] of model.metadata) copy.metadata.set(key, value);
  for (const fn of model.functions) {
    const graph = cloner.graph(fn.graph);
    copy.functions.push(inheritOrigin(fn, { ...fn, graph, opsets: new Map(fn.opsets) }));
  }
  inheritOrigin(model, copy);
  return { model: copy, values: cloner.values, nodes: cloner.nodes };
}

export interface ClonerOptions {
  /**
   * A value that the cloned region reads but does not define: `keep` reads the original (copying a body within one
   * model), `copy` makes a copy on first sight (copying everything; the copies then also stand for the same encoded
   * messages of the file). Default `keep`.
   */
  readonly outer?: 'keep' | 'copy';
  /** Original to replacement for values defined outside, e.g. function inputs to the operands of a call. */
  readonly values?: ReadonlyMap<Value, Value>;
  /** `keep` copies pinned names; `hint` turns them into hints, for copies within one model. Default `keep`. */
  readonly names?: 'keep' | 'hint';
  /** Rewrites an attribute before it is copied; undefined drops it. Graph attributes are still copied afterwards. */
  readonly attribute?: (name: string, attribute: Attribute) => Attribute | undefined;
}

/** Copies nodes and graphs one by one under one map of values. */
export class Cloner {
  readonly values: Map<Value, Value>;
  readonly nodes = new Map<Node, Node>();
  readonly #outer: 'keep' | 'copy';
  readonly #names: 'keep' | 'hint';
  readonly #attribute: ((name: string, attribute: Attribute) => Attribute | undefined) | undefined;

  constructor(options: ClonerOptions = {}) {
    this.values = new Map(options.values);
    this.#outer = options.outer ?? 'keep';
    this.#names = options.names ?? 'keep';
    this.#attribute = options.attribute;
  }

  /** The copy of a value, or what stands for it. */
  value(value: Value): Value {
    const known = this.values.get(value);
    if (known !== undefined) return known;
    return this.#outer === 'keep' ? value : this.define(value);
  }

  /** Copies a value that the region defines (input, initializer, node output). */
  define(value: Value): Value {
    const known = this.values.get(value);
    if (known !== undefined) return known;
    const pinned = this.#names === 'keep';
    const copy = new Value({ hint: pinned ? value.hint : (value.name ?? value.hint) });
    if (pinned) copy.name = value.name;
    copy.type = value.type;
    copy.tensor = value.tensor;
    copyAnnotations(value, copy);
    this.values.set(value, copy);
    return copy;
  }

  /** A detached copy of a node; its outputs are new values. */
  node(node: Node): Node {
    const attributes: [string, Attribute][] = [];
    for (const [name, attribute] of node.attributes) {
      const rewritten = this.#attribute === undefined ? attribute : this.#attribute(name, attribute);
      if (rewritten !== undefined) attributes.push([name, this.attribute(rewritten)]);
    }
    const copy = new Node({
      op: node.op,
      domain: node.domain,
      overload: node.overload,
      inputs: node.inputs.map((input) => (input === null ? null : this.value(input))),
      outputs: node.outputs.map((output) => (output === null ? null : this.define(output))),
      attributes,
    });
    copy.name = node.name;
    copy.provenance = node.provenance;
    copyAnnotations(node, copy);
    this.nodes.set(node, copy);
    return this.#inherit(node, copy);
  }

  /** A copy of an attribute; bodies are copied, everything else is immutable and shared. */
  attribute(attribute: Attribute): Attribute {
    if (attribute.type === 'graph')
      return this.#inherit(attribute, { type: 'graph', value: this.graph(attribute.value) });
    if (attribute.type === 'graphs')
      return this.#inherit(attribute, {
        type: 'graphs',
        value: attribute.value.map((graph) => this.graph(graph)),
      });
    return attribute;
  }

  graph(graph: Graph): Graph {
    const copy = new Graph();
    copy.name = graph.name;
    copyAnnotations(graph, copy);
    // Everything defined here is known before any node is copied, so the order of the nodes does not matter.
    for (const input of graph.inputs) copy.addInput(this.define(input));
    for (const value of graph.initializers) copy.addInitializer(this.define(value));
    for (const node of graph.nodes())
      for (const output of node.outputs) if (output !== null) this.define(output);
    for (const node of graph.nodes()) copy.append(this.node(node));
    for (const output of graph.outputs) {
      const slot = copy.addOutput(this.#names === 'keep' ? output.name : undefined, this.value(output.value));
      slot.type = output.type;
      copyAnnotations(output, slot);
    }
    return this.#inherit(graph, copy);
  }

  #inherit<T extends object>(from: T, to: T): T {
    return this.#outer === 'copy' ? inheritOrigin(from, to) : to;
  }
}

function copyAnnotations(from: Annotations, to: Annotations): void {
  if (from.doc !== undefined) to.doc = from.doc;
  for (const [key, value] of from.metadata) to.metadata.set(key, value);
}
