/**
 * Models as text in the ONNX textual syntax, readable by `onnx.parser` and by `parseModel`. Types and provenance go into
 * `#` comments. What the syntax cannot carry but we can read back goes into `#@ {json}` lines ahead of a node or graph.
 */
import type { Attribute } from '../attribute.js';
import type { Annotations, Graph, Node, Value } from '../graph.js';
import { type LocalFunction, Model } from '../model.js';
import { assignNames, type Names } from '../names.js';
import { elementsOf, INLINE_LIMIT, type Tensor } from '../tensor.js';
import { isFloat } from '../types.js';
import { payloadText, tensorHead, tensorText } from './payload.js';
import {
  attributeTypeWord,
  floatAttributeText,
  hexLiteral,
  isIdentifier,
  isTypeWord,
  qualified,
  quotable,
  quote,
  typeText,
} from './spelling.js';

export interface PrintOptions {
  /** Types of node outputs as trailing comments. */
  readonly types?: boolean;
  /** Which pass or method made a node, as a trailing comment. */
  readonly provenance?: boolean;
  /** Docs and metadata of nodes and graphs in `#@` lines; those of single values are not printed. */
  readonly annotations?: boolean;
  /**
   * The text that a fold must not change: everything but the numbers of weights, which are float initializers of rank 1
   * and more, float tensors of several elements in attributes, and all tensors over `payloadLimit`. Header texts that say who wrote the file (producer, metadata, doc) are left out.
   */
  readonly structureOnly?: boolean;
  /**
   * Tensors up to this many bytes are printed in full. Default `INLINE_LIMIT`, and 64 for float initializers of rank 1
   * and more, which are weights more often than not.
   */
  readonly payloadLimit?: number;
  /**
   * Decides for each tensor whether its numbers are printed, where they are in memory; replaces the two rules above.
   * `value` is the initializer, or the first output of the node that holds the tensor in an attribute.
   */
  readonly payload?: (value: Value, tensor: Tensor) => boolean;
  /** Values whose numbers are not printed, whatever the other rules say. */
  readonly hidden?: (value: Value) => boolean;
}

const WEIGHT_LIMIT = 64;

/** A model as text. Deterministic; ends with a line end. Errors: those of `assignNames`. */
export function printModel(model: Model, options: PrintOptions = {}): string {
  const printer = new Printer(assignNames(model), options);
  return `${[header(model, options), printer.main(model.graph), ...model.functions.map((fn) => printer.function(fn))].join('\n')}\n`;
}

/** A graph as text, without opsets. Values captured from outside keep their names. */
export function printGraph(graph: Graph, options: PrintOptions = {}): string {
  return `${new Printer(namesOf(graph), options).main(graph)}\n`;
}

/** Some nodes, one or more lines each, for messages. Works on graphs that break invariants. */
export function printNodes(nodes: readonly Node[], options: PrintOptions = {}): string {
  const printer = new Printer(LABELS, { types: true, provenance: true, ...options });
  return nodes.map((node) => printer.node(node, '')).join('\n');
}

const LABELS: Names = {
  value: (value) => value.label,
  node: (node) => node.name ?? '',
  output: (output) => output.name ?? output.value.label,
  aliases: [],
};

function namesOf(graph: Graph): Names {
  return assignNames(new Model(graph));
}

function header(model: Model, options: PrintOptions): string {
  const lines = [`ir_version: ${model.irVersion}`, `opset_import: ${opsets(model.opsets)}`];
  if (model.domain !== '') lines.push(`domain: ${quote(model.domain)}`);
  if (options.structureOnly !== true) {
    if (model.producerName !== '') lines.push(`producer_name: ${quote(model.producerName)}`);
    if (model.producerVersion !== '') lines.push(`producer_version: ${quote(model.producerVersion)}`);
    if (model.modelVersion !== 0n) lines.push(`model_version: ${model.modelVersion}`);
    if (model.doc !== undefined && model.doc !== '') lines.push(`doc_string: ${quote(model.doc)}`);
    if (model.metadata.size > 0) {
      const entries = [...model.metadata].map(([key, value]) => `${quote(key)}: ${quote(value)}`);
      lines.push(`metadata_props: [${entries.join(', ')}]`);
    }
  }
  return `<\n${lines.map((line) => `  ${line}`).join(',\n')}\n>`;
}

function opsets(versions: ReadonlyMap<string, number>): string {
  return `[${[...versions].map(([domain, version]) => `${quote(domain)}: ${version}`).join(', ')}]`;
}

/** What the syntax cannot say, as JSON; undefined values are left out. */
type Pragma = Record<string, unknown>;

function pragmaLine(pragma: Pragma, indent: string): string {
  const entries = Object.entries(pragma).filter(([, value]) => value !== undefined);
  return entries.length === 0 ? '' : `${indent}#@ ${JSON.stringify(Object.fromEntries(entries))}\n`;
}

class Printer {
  constructor(
    readonly names: Names,
    readonly options: PrintOptions,
  ) {}

  main(graph: Graph): string {
    return `${pragmaLine(this.#annotations(graph), '')}${this.#graph(graph, quotable(graph.name), '')}`;
  }

  function(fn: LocalFunction): string {
    const lines = [`domain: ${quote(fn.domain)}`];
    if (fn.overload !== '') lines.push(`overload: ${quote(fn.overload)}`);
    lines.push(`opset_import: ${opsets(fn.opsets)}`);
    const names = fn.attributeNames.filter((name) => fn.attributeDefaults?.has(name) !== true).map(quotable);
    const defaults = [...(fn.attributeDefaults ?? [])].map(
      ([name, attribute]) => `${quotable(name)}${this.#attribute(attribute, '  ')}`,
    );
    const parameters = [...names, ...defaults].join(', ');
    const attributes = parameters === '' ? '' : ` <${parameters}>`;
    const head = `<\n${lines.map((line) => `  ${line}`).join(',\n')}\n>\n`;
    return `${pragmaLine(this.#annotations(fn.graph), '')}${head}${this.#graph(fn.graph, quotable(fn.name) + attributes, '')}`;
  }

  node(node: Node, indent: string): string {
    const { options } = this;
    const plain: string[] = [];
    const bodies: string[] = [];
    const pragma: Pragma = this.#annotations(node);
    for (const [name, attribute] of node.attributes) {
      const text = `${isIdentifier(name) ? name : quote(name)}${this.#attribute(attribute, `${indent}  `, node)}`;
      (attribute.type === 'graph' || attribute.type === 'graphs' ? bodies : plain).push(text);
      this.#notePragma(pragma, name, attribute);
    }
    const label = node.name === undefined ? '' : `[${quotable(node.name)}] `;
    const outputs = this.#list(node.outputs);
    const op = `${qualified(node.domain, node.op)}${node.overload === '' ? '' : `:${quotable(node.overload)}`}`;
    const attributes = plain.length === 0 ? '' : ` <${plain.join(', ')}>`;
    // The syntax takes one attribute list, ahead of the operands or behind them.
    const behind = bodies.length > 0;
    const operands = `(${this.#list(node.inputs)})`;
    const call = behind
      ? `${op}${operands} <\n${[...plain, ...bodies].map((text) => `${indent}  ${text}`).join(',\n')}\n${indent}>`
      : `${op}${attributes}${attributes === '' ? '' : ' '}${operands}`;
    const comments: string[] = [];
    if (options.types === true)
      comments.push(node.outputs.map((v) => (v?.type === undefined ? '?' : typeText(v.type))).join(', '));
    if (options.provenance === true && node.provenance !== undefined) comments.push(`by ${node.provenance}`);
    const comment = comments.length === 0 ? '' : `  # ${comments.join('; ').replaceAll('\n', ' ')}`;
    return `${pragmaLine(pragma, indent)}${indent}${label}${outputs}${outputs === '' ? '' : ' '}= ${call}${comment}`;
  }

  #graph(graph: Graph, head: string, indent: string): string {
    const inner = `${indent}  `;
    const inputs = graph.inputs.map((value) => this.#input(graph, value));
    const outputs = graph.outputs.map((output) => {
      const type = output.type ?? output.value.type;
      return `${type === undefined ? '' : `${typeText(type)} `}${quotable(this.names.output(output))}`;
    });
    const isInput = new Set(graph.inputs);
    const initializers = [...graph.initializers]
      .filter((value) => !isInput.has(value))
      .map((value) => `${inner}${this.#initializer(value)}`);
    const lines = [...graph.nodes()].map((node) => this.node(node, inner));
    for (const alias of this.names.aliases) {
      if (alias.graph !== graph) continue;
      const source = quotable(this.names.value(alias.value));
      lines.push(`${inner}[${quotable(alias.nodeName)}] ${quotable(alias.name)} = Identity(${source})`);
    }
    const weights = initializers.length === 0 ? '' : `${indent}<\n${initializers.join(',\n')}\n${indent}>\n`;
    const signature = `${head} (${wrap(inputs, inner, indent)}) => (${wrap(outputs, inner, indent)})`;
    return `${signature}\n${weights}${indent}{\n${lines.map((line) => `${line}\n`).join('')}${indent}}`;
  }

  #input(graph: Graph, value: Value): string {
    const { type, tensor } = value;
    const head = `${type === undefined ? '' : `${typeText(type)} `}${quotable(this.names.value(value))}`;
    if (tensor === undefined || !graph.initializers.has(value)) return head;
    return `${tensorHead(tensor)} ${quotable(this.names.value(value))} = ${this.#payload(value, tensor)}`;
  }

  #initializer(value: Value): string {
    const { tensor } = value;
    const name = quotable(this.names.value(value));
    if (tensor === undefined) return `${value.type === undefined ? '' : `${typeText(value.type)} `}${name}`;
    return `${tensorHead(tensor)} ${name} = ${this.#payload(value, tensor)}`;
  }

  #payload(value: Value, tensor: Tensor): string {
    return payloadText(tensor, this.#printsNumbers(value, tensor));
  }

  #printsNumbers(value: Value, tensor: Tensor): boolean {
    const { payload, structureOnly, payloadLimit, hidden } = this.options;
    if (hidden?.(value) === true) return false;
    if (payload !== undefined) return payload(value, tensor);
    const weight = isFloat(tensor.dtype) && tensor.dims.length > 0;
    if (structureOnly === true && weight) return false;
    return tensor.data.byteLength <= (payloadLimit ?? (weight ? WEIGHT_LIMIT : INLINE_LIMIT));
  }

  #list(values: readonly (Value | null)[]): string {
    return values.map((value) => (value === null ? '""' : quotable(this.names.value(value)))).join(', ');
  }

  #annotations(thing: Annotations): Pragma {
    if (this.options.annotations !== true) return {};
    return {
      doc: thing.doc,
      metadata: thing.metadata.size === 0 ? undefined : Object.fromEntries(thing.metadata),
    };
  }

  /** Names of tensors and graphs in attributes that the syntax has no place for. */
  #notePragma(pragma: Pragma, name: string, attribute: Attribute): void {
    const note = (kind: string, value: unknown): void => {
      pragma[kind] = { ...(pragma[kind] as object | undefined), [name]: value };
    };
    if (attribute.type === 'tensor') {
      const own = attribute.name;
      if (own !== undefined && quotable(own) !== own) note('tensorNames', own);
    } else if (attribute.type === 'graph' || attribute.type === 'graphs') {
      const graphs = attribute.type === 'graph' ? [attribute.value] : attribute.value;
      if (graphs.some((g) => bodyName(g.name) !== g.name))
        note(
          'graphNames',
          graphs.map((g) => g.name),
        );
      if (this.options.annotations === true && graphs.some((g) => g.doc !== undefined || g.metadata.size > 0))
        note(
          'graphAnnotations',
          graphs.map((g) => this.#annotations(g)),
        );
    }
  }

  /** What follows the name of an attribute; `node` is absent for defaults of functions. */
  #attribute(attribute: Attribute, indent: string, node?: Node): string {
    const body = (graph: Graph): string => this.#graph(graph, bodyName(graph.name), indent);
    // An empty list must say of what; other values show it.
    const list = (type: string, items: readonly string[]): string =>
      items.length === 0 ? `: ${type} = []` : ` = [${items.join(', ')}]`;
    switch (attribute.type) {
      case 'float':
        return ` = ${floatAttributeText(attribute.value)}`;
      case 'int':
        return ` = ${attribute.value}`;
      case 'string':
        return ` = ${quote(attribute.value)}`;
      case 'bytes':
        return ` = ${hexLiteral(attribute.value)}`;
      case 'tensor':
        return ` = ${this.#tensor(attribute.value, attribute.name, node)}`;
      case 'graph':
        return ` = ${body(attribute.value)}`;
      case 'sparse':
        return `: sparse_tensor = ${this.#sparse(attribute.value)}`;
      case 'typeProto':
        return `: type_proto = ${typeText(attribute.value)}`;
      case 'floats':
        return list('floats', attribute.value.map(floatAttributeText));
      case 'ints':
        return list('ints', attribute.value.map(String));
      case 'strings':
        return list('strings', attribute.value.map(quote));
      case 'byteStrings':
        return list('strings', attribute.value.map(hexLiteral));
      case 'tensors':
        return `: tensors = [${attribute.value.map((tensor) => this.#tensor(tensor, undefined)).join(', ')}]`;
      case 'graphs':
        return `: graphs = [${attribute.value.map(body).join(', ')}]`;
      case 'sparses':
        return `: sparse_tensors = [${attribute.value.map((sparse) => this.#sparse(sparse)).join(', ')}]`;
      case 'typeProtos':
        return `: type_protos = [${attribute.value.map(typeText).join(', ')}]`;
      case 'ref':
        return `: ${attributeTypeWord(attribute.attrType) ?? 'undefined'} = @${quotable(attribute.value)}`;
    }
  }

  #tensor(tensor: Tensor, name: string | undefined, node?: Node): string {
    const { payload, structureOnly, payloadLimit = INLINE_LIMIT, hidden } = this.options;
    const value = node?.outputs[0] ?? undefined;
    if (value !== undefined && hidden?.(value) === true) return tensorText(tensor, name, false);
    if (payload !== undefined && value !== undefined) return tensorText(tensor, name, payload(value, tensor));
    // Some exports hold weights in Constant nodes. One number is a parameter of the formula, not a weight.
    const weight = isFloat(tensor.dtype) && elementsOf(tensor) > 1;
    return tensorText(
      tensor,
      name,
      tensor.data.byteLength <= payloadLimit && !(structureOnly === true && weight),
    );
  }

  /** Our extension, `sparse_tensor[3,4] (values, indices)`: the official syntax has none. */
  #sparse(sparse: Extract<Attribute, { type: 'sparse' }>['value']): string {
    const values = this.#tensor(sparse.values, undefined);
    const indices = this.#tensor(sparse.indices, undefined);
    return `sparse_tensor[${sparse.dims.join(',')}] (${values}, ${indices})`;
  }
}

/** Bodies cannot have quoted names: the closest identifier stands in, and a `#@` line has the true name. */
function bodyName(name: string): string {
  const word = name.replace(/[^A-Za-z0-9_]/g, '_');
  const safe = /^[A-Za-z_]/.test(word) ? word : `_${word}`;
  return isTypeWord(safe) || /^(inf|infinity|nan)$/i.test(safe) ? `_${safe}` : safe;
}

/** One item per line once a line would get long. */
function wrap(items: readonly string[], inner: string, indent: string): string {
  const line = items.join(', ');
  return line.length <= 90 ? line : `\n${items.map((item) => `${inner}${item}`).join(',\n')}\n${indent}`;
}
