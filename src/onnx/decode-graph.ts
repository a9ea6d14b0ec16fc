/** `GraphProto` and `NodeProto` to graphs: names are resolved to values, captures of outer values included. */
import type { Attribute } from '../attribute.js';
import { fail, PeftCompileError } from '../errors.js';
import { Graph, Node, Value } from '../graph.js';
import { isSorted, topologicalOrder } from '../order.js';
import { tensorType } from '../types.js';
import { decodeAttribute } from './decode-attribute.js';
import {
  decodeEntries,
  decodeSparse,
  decodeTensor,
  type FileContext,
  type NamedTensor,
} from './decode-tensor.js';
import { decodeValueInfo, type ValueInfo } from './decode-type.js';
import { GRAPH, NODE, TENSOR } from './fields.js';
import { setOrigin } from './origin.js';
import type { Message, Parsed } from './wire.js';

/** Values by name, innermost graph first. */
export class NameScope {
  readonly #own = new Map<string, Value>();
  readonly #constants = new Set<string>();
  constructor(readonly outer: NameScope | undefined) {}

  own(name: string): Value | undefined {
    return this.#own.get(name);
  }

  find(name: string): Value | undefined {
    for (let scope: NameScope | undefined = this; scope !== undefined; scope = scope.outer) {
      const value = scope.#own.get(name);
      if (value !== undefined) return value;
    }
    return undefined;
  }

  /**
   * ONNX Runtime reads Constant nodes as initializers and lets the last of one name win; such files exist (exports of
   * torch 1.6). Any other double definition is an error.
   */
  add(value: Value, name: string, where: string, constant = false): Value {
    if (name === '')
      fail('E_INVALID_GRAPH', {
        message: 'An input or initializer has no name',
        where,
        remedy: 'The model is incomplete; export it again.',
      });
    if (this.#own.has(name) && !(constant && this.#constants.has(name)))
      fail('E_INVALID_GRAPH', {
        message: `The name '${name}' is defined twice`,
        where,
        remedy: 'Names are unique within a graph; export the model again.',
      });
    if (constant) this.#constants.add(name);
    this.#own.set(name, value);
    return value;
  }
}

/** Adds the object to the place of an error that only knows the byte. */
export function within<T>(what: () => string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof PeftCompileError) || cause.code !== 'E_CORRUPT_MODEL' || placed.has(cause))
      throw cause;
    const message = cause.message.split(' (at ')[0] as string;
    const error = new PeftCompileError(cause.code, {
      message,
      where: `${cause.where}, ${what()}`,
      ...(cause.remedy === undefined ? {} : { remedy: cause.remedy }),
    });
    placed.add(error);
    throw error;
  }
}

const placed = new WeakSet<PeftCompileError>();

export function decodeGraph(message: Message, context: FileContext, outer: NameScope | undefined): Graph {
  const parsed = message.parse();
  const graph = setOrigin(new Graph(), message);
  graph.name = parsed.string(GRAPH.name) ?? '';
  setDoc(graph, parsed.string(GRAPH.doc));
  copyInto(graph.metadata, decodeEntries(parsed, GRAPH.metadata));
  const scope = new NameScope(outer);
  const where = `${context.label}, graph '${graph.name}'`;

  for (const input of parsed.subs(GRAPH.input)) {
    const info = decodeValueInfo(input);
    graph.addInput(describe(scope.add(new Value({ name: info.name }), info.name, where), info));
  }
  for (const [i, item] of parsed.subs(GRAPH.initializer).entries())
    addInitializer(
      graph,
      scope,
      within(
        () => nameOf(item, i),
        () => decodeTensor(item, context),
      ),
      item,
      context,
    );
  for (const [i, item] of parsed.subs(GRAPH.sparse).entries())
    addInitializer(
      graph,
      scope,
      within(
        () => `sparse initializer ${i}`,
        () => decodeSparse(item, context),
      ),
      undefined,
      context,
    );
  decodeNodes(graph, parsed.subs(GRAPH.node), scope, context);
  const inputs = new Set(graph.inputs);
  for (const item of parsed.subs(GRAPH.valueInfo)) {
    const info = decodeValueInfo(item);
    const value = scope.own(info.name);
    if (value === undefined) continue;
    if (inputs.has(value)) value.type ??= info.type;
    else describe(value, info);
  }
  for (const item of parsed.subs(GRAPH.output)) {
    const info = decodeValueInfo(item);
    const value = scope.find(info.name) ?? undefinedName(info.name, 'An output of the graph', where);
    value.type ??= scope.own(info.name) === value ? info.type : undefined;
    const output = graph.addOutput(info.name, value);
    output.type = info.type;
    setDoc(output, info.doc);
    copyInto(output.metadata, info.metadata);
  }
  return graph;
}

function nameOf(item: Message, index: number): string {
  try {
    return `tensor '${item.parse().string(TENSOR.name) ?? ''}'`;
  } catch {
    return `initializer ${index}`;
  }
}

function undefinedName(name: string, reader: string, where: string): never {
  fail('E_INVALID_GRAPH', {
    message: `${reader} reads '${name}', which nothing defines`,
    where,
    remedy: 'The model is incomplete; export it again.',
  });
}

/** An initializer may repeat an input, whose default it then is. */
function addInitializer(
  graph: Graph,
  scope: NameScope,
  { name, tensor }: NamedTensor,
  texts: Message | undefined,
  context: FileContext,
): void {
  const where = `${context.label}, initializer '${name}'`;
  const input = scope.own(name);
  if (input !== undefined && input.tensor === undefined) input.tensor = tensor;
  const value = input?.tensor === tensor ? input : scope.add(new Value({ name, tensor }), name, where);
  if (input === undefined) {
    value.type = tensorType(tensor.dtype, tensor.dims);
    const parsed = texts?.parse();
    setDoc(value, parsed?.string(TENSOR.doc));
    if (parsed !== undefined) copyInto(value.metadata, decodeEntries(parsed, TENSOR.metadata));
  }
  graph.addInitializer(value);
}

interface NodeText {
  readonly message: Message;
  readonly parsed: Parsed;
  readonly outputs: readonly (Value | null)[];
}

/** Outputs of all nodes get their values first, so that files whose nodes are out of order can be read too. */
export function decodeNodes(
  graph: Graph,
  messages: readonly Message[],
  scope: NameScope,
  context: FileContext,
): void {
  const texts: NodeText[] = messages.map((message, i) =>
    within(
      () => `node ${i}`,
      () => {
        const parsed = message.parse();
        const constant =
          parsed.string(NODE.op) === 'Constant' && normalDomain(parsed.string(NODE.domain)) === '';
        const outputs = parsed.strings(NODE.output).map((name) => {
          if (name === '') return null;
          return scope.add(new Value({ name }), name, `${context.label}, ${nodeLabel(parsed, i)}`, constant);
        });
        return { message, parsed, outputs };
      },
    ),
  );
  for (const [i, { message, parsed, outputs }] of texts.entries()) {
    const where = () => nodeLabel(parsed, i);
    const node = within(where, () => {
      const inputs = parsed
        .strings(NODE.input)
        .map((name) =>
          name === ''
            ? null
            : (scope.find(name) ?? undefinedName(name, 'A node', `${context.label}, ${where()}`)),
        );
      const name = parsed.string(NODE.name);
      return new Node({
        op: parsed.string(NODE.op) ?? '',
        domain: normalDomain(parsed.string(NODE.domain)),
        overload: parsed.string(NODE.overload) ?? '',
        ...(name === undefined || name === '' ? {} : { name }),
        inputs,
        outputs,
        attributes: decodeAttributes(parsed, scope, context, where),
      });
    });
    setDoc(node, parsed.string(NODE.doc));
    copyInto(node.metadata, decodeEntries(parsed, NODE.metadata));
    graph.append(setOrigin(node, message));
  }
  if (!isSorted(graph)) refuseCycles(graph, context);
}

/** Nodes may stand in any order that has a solution. */
function refuseCycles(graph: Graph, context: FileContext): void {
  try {
    topologicalOrder(graph);
  } catch (cause) {
    if (!(cause instanceof PeftCompileError)) throw cause;
    fail('E_INVALID_GRAPH', {
      message: cause.message.split(' (at ')[0] as string,
      where: `${context.label}, ${cause.where}`,
      remedy: 'The model cannot be run; export it again.',
      cause,
    });
  }
}

function decodeAttributes(
  parsed: Parsed,
  scope: NameScope,
  context: FileContext,
  where: () => string,
): Map<string, Attribute> {
  const attributes = new Map<string, Attribute>();
  for (const item of parsed.subs(NODE.attribute)) {
    const [name, attribute] = decodeAttribute(item, context, (body) => decodeGraph(body, context, scope));
    if (attributes.has(name))
      fail('E_INVALID_GRAPH', {
        message: `The attribute '${name}' is given twice`,
        where: `${context.label}, ${where()}`,
      });
    attributes.set(name, attribute);
  }
  return attributes;
}

function nodeLabel(parsed: Parsed, index: number): string {
  const op = parsed.string(NODE.op) ?? '?';
  return `node ${index}, ${op} '${parsed.string(NODE.name) || (parsed.strings(NODE.output)[0] ?? '')}'`;
}

export function normalDomain(domain: string | undefined): string {
  return domain === undefined || domain === 'ai.onnx' ? '' : domain;
}

/** Type and texts of a value from its `ValueInfoProto`; what is known already wins. */
export function describe(value: Value, info: ValueInfo): Value {
  value.type ??= info.type;
  // Texts come from one message as a whole: the writer must know which one holds them.
  if (value.doc === undefined && value.metadata.size === 0) {
    setDoc(value, info.doc);
    copyInto(value.metadata, info.metadata);
  }
  return value;
}

export function setDoc(target: { doc?: string }, doc: string | undefined): void {
  if (doc !== undefined && doc !== '') target.doc = doc;
}

export function copyInto(target: Map<string, string>, entries: ReadonlyMap<string, string>): void {
  for (const [key, value] of entries) target.set(key, value);
}
