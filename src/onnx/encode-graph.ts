/** Graphs and nodes to `GraphProto` and `NodeProto`. */
import type { Graph, Node, Output, Value } from '../graph.js';
import type { Alias, Names } from '../names.js';
import type { Tensor } from '../tensor.js';
import { tensorType, type ValueType } from '../types.js';
import { normalDomain } from './decode-graph.js';
import { decodeEntries } from './decode-tensor.js';
import { decodeValueInfo } from './decode-type.js';
import { type AttributeContext, encodeAttribute } from './encode-attribute.js';
import { encodeSparse, encodeTensor, type Placement, sparseForm } from './encode-tensor.js';
import { encodeValueInfo } from './encode-type.js';
import { ATTRIBUTE, GRAPH, NODE, TENSOR, VALUE_INFO } from './fields.js';
import { originOf } from './origin.js';
import { Rewriter } from './rewrite.js';
import { concat, type Encoded, messageField, Rope } from './rope.js';
import type { Message, Parsed } from './wire.js';

export class GraphEncoder implements AttributeContext {
  readonly #aliases = new Map<Graph, Alias[]>();

  constructor(
    readonly names: Names,
    readonly placement: Placement,
  ) {
    for (const alias of names.aliases) {
      const list = this.#aliases.get(alias.graph);
      if (list === undefined) this.#aliases.set(alias.graph, [alias]);
      else list.push(alias);
    }
  }

  graph(graph: Graph): Encoded {
    const rewriter = new Rewriter(originOf(graph));
    const { parsed } = rewriter;
    const before = new Before(parsed);
    const inputs = new Set(graph.inputs);
    rewriter.messages(GRAPH.node, this.nodes(graph)).string(GRAPH.name, graph.name);
    const dense: Encoded[] = [];
    const sparse: Encoded[] = [];
    for (const value of graph.initializers) {
      const name = this.names.value(value);
      const tensor = value.tensor as Tensor;
      const form = sparseForm(tensor, name);
      if (form !== undefined) {
        sparse.push(encodeSparse(form, this.placement));
        continue;
      }
      dense.push(
        encodeTensor(
          tensor,
          name,
          this.placement.initializer(tensor),
          inputs.has(value) || !before.tensorHolds(value) ? undefined : value,
          before.tensors.get(value.name ?? ''),
        ),
      );
    }
    rewriter.messages(GRAPH.initializer, dense).messages(GRAPH.sparse, sparse).string(GRAPH.doc, graph.doc);
    rewriter.messages(
      GRAPH.input,
      graph.inputs.map((value) =>
        encodeValueInfo(this.names.value(value), value.type, value, before.inputs.get(value.name ?? ''), () =>
          before.type(value),
        ),
      ),
    );
    rewriter.messages(
      GRAPH.output,
      graph.outputs.map((output, i) => this.output(output, before.output(output.name, i), before)),
    );
    const elsewhere = (value: Value): boolean => inputs.has(value) || before.tensorHolds(value);
    rewriter.set(GRAPH.valueInfo, this.valueInfo(graph, GRAPH.valueInfo, parsed, before, elsewhere));
    return rewriter.entries(GRAPH.metadata, graph.metadata).done();
  }

  output(output: Output, origin: Message | undefined, before: Before): Encoded {
    const { value } = output;
    return encodeValueInfo(this.names.output(output), value.type ?? output.type, output, origin, () =>
      value.name === output.name ? before.type(value) : undefined,
    );
  }

  /** Nodes in order, and an Identity for every slot that cannot name its value. */
  nodes(graph: Graph): Encoded[] {
    const encoded: Encoded[] = [];
    for (const node of graph.nodes()) encoded.push(this.node(node));
    for (const { value, name, nodeName } of this.#aliases.get(graph) ?? [])
      encoded.push(
        new Rewriter(undefined)
          .strings(NODE.input, [this.names.value(value)])
          .strings(NODE.output, [name])
          .string(NODE.name, nodeName)
          .string(NODE.op, 'Identity')
          .done(),
      );
    return encoded;
  }

  node(node: Node): Encoded {
    const rewriter = new Rewriter(originOf(node));
    const nameOf = (value: Value | null): string => (value === null ? '' : this.names.value(value));
    const templates = new Map<string, Message>();
    for (const message of rewriter.parsed?.subs(NODE.attribute) ?? [])
      templates.set(message.parse().string(ATTRIBUTE.name) ?? '', message);
    // Nodes of passes get a minted name, so that profiles and errors can tell them apart; the file's stay as they are.
    const name = node.name ?? (node.provenance === undefined ? '' : this.names.node(node));
    return rewriter
      .strings(NODE.input, node.inputs.map(nameOf))
      .strings(NODE.output, node.outputs.map(nameOf))
      .string(NODE.name, name)
      .string(NODE.op, node.op)
      .messages(
        NODE.attribute,
        [...node.attributes].map(([key, attribute]) =>
          encodeAttribute(key, attribute, this, templates.get(key)),
        ),
      )
      .string(NODE.doc, node.doc)
      .normalString(NODE.domain, node.domain, normalDomain)
      .string(NODE.overload, node.overload)
      .entries(NODE.metadata, node.metadata)
      .done();
  }

  /**
   * Declarations of inner values. Those of the file stay in their order, without the ones whose value is gone or
   * whose name now means something else; values get a new one only for texts that have no other place. `elsewhere`
   * tells which inputs and initializers keep their texts in another message.
   */
  valueInfo(
    graph: Graph,
    field: number,
    parsed: Parsed | undefined,
    before?: Before,
    elsewhere: (value: Value) => boolean = () => true,
  ): Rope {
    const current = new Map<string, Value>();
    const taken = new Set<string>();
    const inner: Value[] = [];
    for (const node of graph.nodes())
      for (const value of node.outputs) {
        if (value === null) continue;
        inner.push(value);
        taken.add(this.names.value(value));
        if (value.name !== undefined) current.set(value.name, value);
      }
    const outer = new Map<string, Value>();
    for (const value of [...graph.inputs, ...graph.initializers]) {
      taken.add(this.names.value(value));
      if (value.name !== undefined) outer.set(value.name, value);
    }
    const declared = new Set<Value>();
    const rope = new Rope();
    for (const message of parsed?.subs(field) ?? []) {
      const name = message.parse().string(VALUE_INFO.name) ?? '';
      const value = current.get(name);
      const initializer = outer.get(name);
      if (value !== undefined) {
        declared.add(value);
        const encoded = encodeValueInfo(this.names.value(value), value.type, value, message, () =>
          before?.type(value),
        );
        rope.rope(messageField(field, encoded));
      } else if (initializer !== undefined) {
        const texts = elsewhere(initializer) ? undefined : initializer;
        const encoded = encodeValueInfo(this.names.value(initializer), initializer.type, texts, message, () =>
          before?.type(initializer),
        );
        rope.rope(messageField(field, encoded));
      } else if (!taken.has(name))
        rope.rope(messageField(field, encodeValueInfo(name, undefined, undefined, message)));
    }
    const fresh = inner.filter((v) => !declared.has(v) && (v.doc !== undefined || v.metadata.size > 0));
    return rope.rope(
      concat(
        fresh.map((v) => messageField(field, encodeValueInfo(this.names.value(v), v.type, v, undefined))),
      ),
    );
  }
}

/** The messages of the graph as it was, by name. */
class Before {
  readonly inputs = new Map<string, Message>();
  readonly tensors = new Map<string, Message>();
  readonly #declared = new Map<string, Message>();
  readonly #outputs: { name: string; message: Message }[] = [];

  constructor(parsed: Parsed | undefined) {
    const name = (message: Message): string => message.parse().string(VALUE_INFO.name) ?? '';
    for (const message of parsed?.subs(GRAPH.input) ?? []) this.inputs.set(name(message), message);
    for (const message of parsed?.subs(GRAPH.output) ?? [])
      this.#outputs.push({ name: name(message), message });
    for (const message of parsed?.subs(GRAPH.valueInfo) ?? []) {
      const key = name(message);
      if (!this.#declared.has(key)) this.#declared.set(key, message);
    }
    for (const message of parsed?.subs(GRAPH.initializer) ?? [])
      this.tensors.set(message.parse().string(TENSOR.name) ?? '', message);
  }

  /** The type that decoding gives the value when its name still means what it meant. */
  type(value: Value): ValueType | undefined {
    const name = value.name ?? '';
    const { tensor } = value;
    const input = this.inputs.get(name);
    if (input === undefined && tensor !== undefined)
      return originOf(tensor) !== undefined || sparseForm(tensor, name) !== undefined
        ? tensorType(tensor.dtype, tensor.dims)
        : undefined;
    for (const message of [input, this.#declared.get(name), this.output(name, -1)]) {
      const type = message && decodeValueInfo(message).type;
      if (type !== undefined) return type;
    }
    return undefined;
  }

  /** The slot at the same place, or the one of the same name. */
  output(name: string | undefined, index: number): Message | undefined {
    const there = this.#outputs[index];
    if (there !== undefined && there.name === name) return there.message;
    return this.#outputs.find((o) => o.name === name)?.message;
  }

  /** Texts of an initializer live in its tensor, unless they came from its `value_info`. */
  tensorHolds(value: Value): boolean {
    const name = value.name ?? '';
    const message = this.tensors.get(name);
    if (message === undefined || !this.#declared.has(name)) return true;
    const parsed = message.parse();
    return (parsed.string(TENSOR.doc) ?? '') !== '' || decodeEntries(parsed, TENSOR.metadata).size > 0;
  }
}
