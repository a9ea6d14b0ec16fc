/** Graphs, nodes and attributes in the ONNX textual syntax. */

import type { Attribute } from '../attribute.js';
import { type Annotations, Graph, Node, redirectUses, Value } from '../graph.js';
import type { ValueType } from '../types.js';
import { parseAttributeValue, readTensor } from './parse-attribute.js';
import { parseType } from './parse-types.js';
import type { Scanner } from './scanner.js';

type Pragma = Readonly<Record<string, unknown>>;

/**
 * Names of one graph; what is not found here is looked up outside. Some tools write nodes ahead of the producers of
 * their inputs, so a name that is not known yet stands for a value that is still to be defined, here or outside.
 */
class Names {
  readonly #values = new Map<string, Value>();
  readonly #pending = new Map<string, Value>();
  /** Types that the value-info list declares ahead of the nodes. */
  readonly types = new Map<string, ValueType>();

  constructor(readonly outer: Names | undefined) {}

  find(name: string): Value | undefined {
    return this.#values.get(name) ?? this.outer?.find(name);
  }

  use(name: string): Value {
    const known = this.find(name) ?? this.#pending.get(name);
    if (known !== undefined) return known;
    const value = new Value({ name });
    this.#pending.set(name, value);
    return value;
  }

  /** The value of a definition; undefined when the name is taken in this graph. */
  define(name: string): Value | undefined {
    if (this.#values.has(name)) return undefined;
    const value = this.#pending.get(name) ?? new Value({ name });
    this.#pending.delete(name);
    this.#values.set(name, value);
    return value;
  }

  /** Leaves the names that were not defined here to the outer graph. Returns one that nobody can define. */
  close(): string | undefined {
    for (const [name, value] of this.#pending) {
      if (this.outer === undefined) return name;
      const outside = this.outer.find(name) ?? this.outer.#pending.get(name);
      if (outside === undefined) this.outer.#pending.set(name, value);
      else redirectUses(value, outside);
    }
    return undefined;
  }
}

export class GraphParser {
  #names: Names | undefined;

  constructor(readonly scanner: Scanner) {}

  /** Inputs to closing brace; the name was read. */
  graph(name: string, pragma: Pragma): Graph {
    const { scanner } = this;
    const outer = this.#names;
    const names = new Names(outer);
    this.#names = names;
    const graph = new Graph();
    graph.name = name;
    annotate(graph, pragma);
    this.#inputs(graph);
    scanner.expect('=');
    scanner.expect('>');
    const slots = this.#outputs();
    this.#initializers(graph);
    scanner.expect('{');
    while (!scanner.accept('}')) graph.append(this.#node(names));
    for (const slot of slots) {
      const value =
        outer === undefined
          ? (names.find(slot.name) ?? scanner.fail(`Output '${slot.name}' is not computed in the graph`))
          : names.use(slot.name);
      const output = graph.addOutput(slot.name, value);
      output.type = slot.type;
      if (slot.type !== undefined) value.type ??= slot.type;
    }
    const missing = names.close();
    if (missing !== undefined) scanner.fail(`'${missing}' is read but defined nowhere`);
    this.#names = outer;
    return graph;
  }

  #inputs(graph: Graph): void {
    const { scanner } = this;
    scanner.expect('(');
    if (scanner.accept(')')) return;
    do {
      const { name, type } = this.#valueInfo();
      const value = this.#define(name, type);
      graph.addInput(value);
      if (scanner.accept('=')) {
        value.tensor = readTensor(scanner, type ?? scanner.fail('A default needs a type'));
        graph.addInitializer(value);
      }
    } while (scanner.accept(','));
    scanner.expect(')');
  }

  #outputs(): { name: string; type: ValueType | undefined }[] {
    const { scanner } = this;
    const slots: { name: string; type: ValueType | undefined }[] = [];
    scanner.expect('(');
    if (scanner.accept(')')) return slots;
    do slots.push(this.#valueInfo());
    while (scanner.accept(','));
    scanner.expect(')');
    return slots;
  }

  #valueInfo(): { name: string; type: ValueType | undefined } {
    const { scanner } = this;
    const type = scanner.atType() ? parseType(scanner) : undefined;
    return { name: scanner.name('The name of a value'), type };
  }

  /** Initializers and, without `=`, declared types of values computed below. */
  #initializers(graph: Graph): void {
    const { scanner } = this;
    if (!scanner.accept('<')) return;
    if (scanner.accept('>')) return;
    do {
      const { name, type } = this.#valueInfo();
      if (scanner.accept('=')) {
        const value = this.#define(name, type);
        value.tensor = readTensor(scanner, type ?? scanner.fail('An initializer needs a type'));
        graph.addInitializer(value);
      } else if (type !== undefined) this.#names?.types.set(name, type);
    } while (scanner.accept(','));
    scanner.expect('>');
  }

  #define(name: string, type: ValueType | undefined): Value {
    const value =
      this.#names?.define(name) ??
      this.scanner.fail(`'${name}' is defined twice in one graph`, 'Every value has one definition');
    value.type = type ?? this.#names?.types.get(name);
    return value;
  }

  #node(names: Names): Node {
    const { scanner } = this;
    const pragma = scanner.takePragma();
    let name: string | undefined;
    if (scanner.accept('[')) {
      name = scanner.optionalName() ?? '';
      scanner.expect(']');
    }
    const outputNames = this.#nameList('=');
    scanner.expect('=');
    const path = [scanner.name('An operator')];
    while (scanner.accept('.')) path.push(scanner.name('An operator'));
    const op = path.pop() ?? '';
    const overload = scanner.accept(':') ? scanner.name('An overload') : '';
    const attributes = this.#attributes(pragma);
    scanner.expect('(');
    const inputs = this.#nameList(')').map((n) => (n === '' ? null : names.use(n)));
    scanner.expect(')');
    if (attributes.length === 0) attributes.push(...this.#attributes(pragma));
    const domain = path.join('.');
    const node = new Node({
      op,
      domain: domain === 'ai.onnx' ? '' : domain,
      overload,
      inputs,
      outputs: outputNames.map((n) => (n === '' ? null : this.#define(n, undefined))),
      attributes,
    });
    node.name = name;
    annotate(node, pragma);
    return node;
  }

  /** Names up to `end`; nothing between commas is an absent value, and a comma at the end has no effect. */
  #nameList(end: string): string[] {
    const { scanner } = this;
    const names: string[] = [];
    while (scanner.peek() !== end) {
      const name = scanner.optionalName();
      if (name === undefined && scanner.peek() !== ',') break;
      names.push(name ?? '');
      if (!scanner.accept(',')) break;
    }
    return names;
  }

  #attributes(pragma: Pragma): [string, Attribute][] {
    const { scanner } = this;
    const attributes: [string, Attribute][] = [];
    if (!scanner.accept('<')) return attributes;
    do {
      const name = scanner.name('An attribute');
      const annotation = scanner.accept(':') ? scanner.word('An attribute type') : undefined;
      scanner.expect('=');
      let index = 0;
      const attribute = parseAttributeValue(scanner, annotation, () => {
        const written = scanner.word('The name of a graph');
        const own = at(entry(pragma, 'graphNames', name), index);
        const texts = at(entry(pragma, 'graphAnnotations', name), index);
        index++;
        return this.graph(typeof own === 'string' ? own : written, record(texts));
      });
      const tensorName = entry(pragma, 'tensorNames', name);
      attributes.push([
        name,
        attribute.type === 'tensor' && typeof tensorName === 'string'
          ? { ...attribute, name: tensorName }
          : attribute,
      ]);
    } while (scanner.accept(','));
    scanner.expect('>');
    return attributes;
  }
}

function record(value: unknown): Pragma {
  return typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value)) : {};
}

function entry(pragma: Pragma, kind: string, name: string): unknown {
  return record(pragma[kind])[name];
}

function at(list: unknown, index: number): unknown {
  return Array.isArray(list) ? list[index] : undefined;
}

function annotate(thing: Annotations, pragma: Pragma): void {
  if (typeof pragma.doc === 'string') thing.doc = pragma.doc;
  for (const [key, value] of Object.entries(record(pragma.metadata)))
    if (typeof value === 'string') thing.metadata.set(key, value);
}
