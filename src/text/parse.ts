/** Text in the ONNX textual syntax to models: what `printModel` writes and what `onnx.printer` writes. */
import type { Attribute } from '../attribute.js';
import { Graph, type Value } from '../graph.js';
import { type LocalFunction, Model } from '../model.js';
import { parseAttributeValue } from './parse-attribute.js';
import { GraphParser } from './parse-graph.js';
import { parseType } from './parse-types.js';
import { Scanner } from './scanner.js';

export interface ParseOptions {
  /** Name of the file or source for messages. */
  readonly file?: string;
}

/**
 * A model from text. All names become pins; weights that the text only declares get handles that cannot be read.
 * Errors: `E_PARSE` with line and column.
 */
export function parseModel(text: string, options: ParseOptions = {}): Model {
  const scanner = new Scanner(text, options.file);
  const model = new Model(new Graph());
  if (scanner.accept('<')) parseHeader(scanner, (key) => modelField(scanner, model, key));
  const pragma = scanner.takePragma();
  model.graph = new GraphParser(scanner).graph(scanner.name('The name of the graph'), pragma);
  while (!scanner.done) model.functions.push(parseFunction(scanner));
  return model;
}

/** A graph without model header. Errors as `parseModel`. */
export function parseGraph(text: string, options: ParseOptions = {}): Graph {
  const scanner = new Scanner(text, options.file);
  const pragma = scanner.takePragma();
  const graph = new GraphParser(scanner).graph(scanner.name('The name of the graph'), pragma);
  if (!scanner.done) scanner.fail('End of text expected');
  return graph;
}

function parseHeader(scanner: Scanner, field: (key: string) => boolean): void {
  do {
    const key = scanner.word('A header field');
    scanner.expect(':');
    if (!field(key)) scanner.fail(`'${key}' is no header field here`);
  } while (scanner.accept(','));
  scanner.expect('>');
}

function modelField(scanner: Scanner, model: Model, key: string): boolean {
  const fields: Readonly<Record<string, () => void>> = {
    ir_version: () => {
      model.irVersion = Number(scanner.integer('A version'));
    },
    opset_import: () => readOpsets(scanner, model.opsets),
    producer_name: () => {
      model.producerName = scanner.string('A name');
    },
    producer_version: () => {
      model.producerVersion = scanner.string('A version');
    },
    domain: () => {
      model.domain = scanner.string('A domain');
    },
    model_version: () => {
      model.modelVersion = scanner.integer('A version');
    },
    doc_string: () => {
      model.doc = scanner.string('A text');
    },
    metadata_props: () => {
      readEntries(scanner, (name) => model.metadata.set(name, scanner.string('A value')));
    },
  };
  const read = Object.hasOwn(fields, key) ? fields[key] : undefined;
  read?.();
  return read !== undefined;
}

function readOpsets(scanner: Scanner, opsets: Map<string, number>): void {
  readEntries(scanner, (domain) =>
    opsets.set(domain === 'ai.onnx' ? '' : domain, Number(scanner.integer('A version'))),
  );
}

/** `[ "key" : value, … ]` */
function readEntries(scanner: Scanner, entry: (key: string) => void): void {
  scanner.expect('[');
  if (scanner.accept(']')) return;
  do {
    const key = scanner.string('A key');
    scanner.expect(':');
    entry(key);
  } while (scanner.accept(','));
  scanner.expect(']');
}

function parseFunction(scanner: Scanner): LocalFunction {
  const pragma = scanner.takePragma();
  const opsets = new Map<string, number>();
  const texts: Record<string, string> = {};
  if (scanner.accept('<'))
    parseHeader(scanner, (key) => {
      if (key === 'opset_import') readOpsets(scanner, opsets);
      else if (key === 'domain' || key === 'overload' || key === 'doc_string')
        texts[key] = scanner.string('A text');
      else return false;
      return true;
    });
  const name = scanner.name('The name of the function');
  const attributeNames: string[] = [];
  const attributeDefaults = new Map<string, Attribute>();
  if (scanner.accept('<')) {
    do {
      const attribute = scanner.name('The name of an attribute');
      const annotation = scanner.accept(':') ? scanner.word('An attribute type') : undefined;
      if (annotation === undefined && scanner.peek() !== '=') attributeNames.push(attribute);
      else {
        scanner.expect('=');
        const body = (): Graph => new GraphParser(scanner).graph(scanner.word('The name of a graph'), {});
        attributeDefaults.set(attribute, parseAttributeValue(scanner, annotation, body));
      }
    } while (scanner.accept(','));
    scanner.expect('>');
  }
  const graph = new GraphParser(scanner).graph('', pragma);
  if (texts.doc_string !== undefined) graph.doc ??= texts.doc_string;
  return {
    domain: texts.domain ?? '',
    name,
    overload: texts.overload ?? '',
    graph,
    attributeNames,
    opsets,
    ...(attributeDefaults.size === 0 ? {} : { attributeDefaults }),
  };
}

/** A type of its own, e.g. `float[batch,128]`. Errors: `E_PARSE`. */
export function parseValueType(text: string): NonNullable<Value['type']> {
  const scanner = new Scanner(text, undefined);
  const type = parseType(scanner);
  if (!scanner.done) scanner.fail('End of type expected');
  return type;
}
