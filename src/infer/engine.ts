/** Drives the rules over a node or over a model in one pass. */
import type { Attribute } from '../attribute.js';
import { PeftCompileError } from '../errors.js';
import type { Graph, Node, Value } from '../graph.js';
import type { LocalFunction, Model } from '../model.js';
import { type Dim, tensorType, type ValueType } from '../types.js';
import { Call, type Engine } from './call.js';
import { type Contents, contentsOf, setContents, setOverridable } from './contents.js';
import { fallbackTypes } from './fallback.js';
import { foldOf } from './fold/registry.js';
import { adopt, type Diagnostic, joinTypes } from './merge.js';
import { ruleOf } from './registry.js';

/** Where nodes stand: the main graph, or the body of a local function with the caller's attributes. */
interface Frame {
  readonly opsets: ReadonlyMap<string, number>;
  readonly attributes: ReadonlyMap<string, Attribute>;
  readonly functions: readonly LocalFunction[];
}

/** Elements past the range of a narrow integer wrap in a way that is not followed here, and count as unknown. */
function representable(contents: Contents | undefined, type: ValueType | undefined): Contents | undefined {
  const [, unsigned, bits] = (type?.kind === 'tensor' && /^(u?)int(8|16|32)$/.exec(type.dtype)) || [];
  if (contents === undefined || bits === undefined) return contents;
  const size = 2 ** Number(bits);
  const least = unsigned === 'u' ? 0 : -size / 2;
  const fits = (item: Dim) => typeof item !== 'number' || (item >= least && item < least + size);
  if (contents.items.every(fits)) return contents;
  return { dims: contents.dims, items: contents.items.map((item) => (fits(item) ? item : null)) };
}

const NO_ATTRIBUTES: ReadonlyMap<string, Attribute> = new Map();

function functionKey(domain: string, name: string, overload: string): string {
  return `${domain}::${name}:${overload}`;
}

/** Nodes with producers first. Files are not always sorted; runtimes accept that. */
function* executionOrder(graph: Graph): Iterable<Node> {
  const done = new Set<Node>();
  const entered = new Set<Node>();
  for (const root of graph.nodes()) {
    const stack = [root];
    for (let node = stack.at(-1); node !== undefined; node = stack.at(-1)) {
      if (!entered.has(node)) {
        entered.add(node);
        for (const input of node.inputs) {
          const producer = input?.producer;
          if (producer?.graph === graph && !entered.has(producer)) stack.push(producer);
        }
        if (stack.at(-1) !== node) continue;
      }
      stack.pop();
      if (done.has(node)) continue;
      done.add(node);
      yield node;
    }
  }
}

class Inference implements Engine {
  readonly diagnostics: Diagnostic[] = [];
  readonly #functions: ReadonlyMap<string, LocalFunction>;
  /** Types of function bodies, joined over all instantiations. */
  readonly #bodies = new Map<Value, ValueType | undefined>();
  #frame: Frame;
  #fresh = 0;

  constructor(
    model: Model | undefined,
    /** Whether data-dependent dimensions get symbols. */
    readonly naming: boolean,
  ) {
    const functions = model?.functions ?? [];
    this.#functions = new Map(functions.map((f) => [functionKey(f.domain, f.name, f.overload), f]));
    this.#frame = { opsets: model?.opsets ?? new Map(), attributes: NO_ATTRIBUTES, functions: [] };
  }

  opset(domain: string): number | undefined {
    return this.#frame.opsets.get(domain);
  }

  parameter(name: string): Attribute | undefined {
    return this.#frame.attributes.get(name);
  }

  freshDim(): Dim {
    return this.naming ? `_d${this.#fresh++}` : null;
  }

  graph(graph: Graph): void {
    for (const value of graph.initializers)
      if (value.tensor !== undefined) value.type ??= tensorType(value.tensor.dtype, value.tensor.dims);
    for (const node of executionOrder(graph)) this.node(node);
  }

  enter(graph: Graph, inputs: readonly (ValueType | undefined)[]): (ValueType | undefined)[] {
    graph.inputs.forEach((value, index) => {
      setContents(value, undefined);
      adopt(value, inputs[index], this.diagnostics);
    });
    this.graph(graph);
    return graph.outputs.map((output) => output.value.type ?? output.type);
  }

  node(node: Node): void {
    const call = new Call(node, this);
    const local = this.#functions.get(functionKey(node.domain, node.op, node.overload));
    const rule = local === undefined ? ruleOf(node.domain, node.op) : undefined;
    try {
      if (local !== undefined) this.#instantiate(local, call);
      else if (rule !== undefined) rule(call);
      else fallbackTypes(call);
    } catch (error) {
      if (!this.naming || !(error instanceof PeftCompileError)) throw error;
      this.diagnostics.push({ where: node.label, message: error.message });
    }
    node.outputs.forEach((output, index) => {
      if (output !== null) adopt(output, call.results[index], this.diagnostics);
    });
    if (local === undefined) this.#fold(call);
  }

  #fold(call: Call): void {
    const { node } = call;
    const fold = node.domain === '' ? foldOf(node.op) : undefined;
    const results = fold?.(call);
    node.outputs.forEach((output, index) => {
      if (output !== null) setContents(output, representable(results?.[index], output.type));
    });
  }

  /** Infers the body of a local function with the types, contents and attributes of one call. */
  #instantiate(local: LocalFunction, call: Call): void {
    const outer = this.#frame;
    // A function that calls itself is ill-formed; its outputs stay unknown.
    if (outer.functions.includes(local)) return;
    const attributes = new Map<string, Attribute>();
    for (const name of call.node.attributes.keys()) {
      const attribute = call.attribute(name);
      if (attribute !== undefined) attributes.set(name, attribute);
    }
    const { graph } = local;
    const formals = graph.inputs.map((formal, index) => {
      const actual = call.value(index);
      formal.type = actual?.type;
      setContents(formal, contentsOf(actual));
      return formal;
    });
    this.#frame = { opsets: local.opsets, attributes, functions: [...outer.functions, local] };
    for (const node of graph.nodes())
      for (const output of node.outputs) if (output !== null) output.type = undefined;
    this.graph(graph);
    this.#frame = outer;
    graph.outputs.forEach(({ value }, index) => {
      call.setType(index, value.type);
      const output = call.node.outputs[index];
      if (output !== null && output !== undefined) setContents(output, contentsOf(value));
    });
    for (const formal of formals) this.#note(formal);
    for (const node of graph.nodes())
      for (const output of node.outputs) if (output !== null) this.#note(output);
  }

  #note(value: Value): void {
    const known = this.#bodies.has(value);
    this.#bodies.set(value, known ? joinTypes(this.#bodies.get(value), value.type) : value.type);
  }

  /** A body shared by calls of different types keeps what all of them agree on. */
  settleBodies(): void {
    for (const [value, type] of this.#bodies) value.type = type;
  }
}

/**
 * Types the outputs of one node from the types of its inputs, and returns contradictions with declared types. Throws
 * `E_TYPE` when the inputs do not fit the operator. Rules follow the node's own form, so most need no model; pass it
 * where a local function or an old opset decides.
 */
export function inferNode(node: Node, model?: Model): Diagnostic[] {
  const inference = new Inference(model, false);
  inference.node(node);
  return inference.diagnostics;
}

/**
 * Types every value of a model, subgraphs and local functions included, in one pass over the nodes. What the file
 * declares is kept where inference knows less; a contradiction is returned and the inferred type wins. Types written by
 * an earlier run are no declarations and are computed anew.
 */
export function inferModel(model: Model): Diagnostic[] {
  const inference = new Inference(model, true);
  for (const value of model.graph.inputs)
    setOverridable(value, value.tensor !== undefined && model.irVersion >= 4);
  inference.graph(model.graph);
  inference.settleBodies();
  return inference.diagnostics;
}
