/** `ModelProto` to models. */
import { isAbsolute, resolve } from 'node:path';
import type { Attribute } from '../attribute.js';
import { fail } from '../errors.js';
import { Graph, Value } from '../graph.js';
import { type LocalFunction, Model } from '../model.js';
import { decodeAttribute } from './decode-attribute.js';
import {
  copyInto,
  decodeGraph,
  decodeNodes,
  describe,
  NameScope,
  normalDomain,
  setDoc,
  within,
} from './decode-graph.js';
import { decodeEntries, type FileContext } from './decode-tensor.js';
import { decodeValueInfo } from './decode-type.js';
import { ExternalFiles } from './external.js';
import { FUNCTION, MODEL, OPSET } from './fields.js';
import { setOrigin } from './origin.js';
import { FileSource, MemorySource, type Source } from './source.js';
import { corrupt, Message, type Parsed } from './wire.js';

/**
 * Loads a model. Structure is read into memory; payloads over `INLINE_LIMIT` stay in their files and are read on
 * demand.
 * @throws PeftCompileError E_IO, E_CORRUPT_MODEL, E_INVALID_GRAPH, E_EXTERNAL_DATA.
 */
export function readModel(path: string): Model {
  const full = isAbsolute(path) ? path : resolve(path);
  const source = new FileSource(full, path);
  return decode(source, { label: path, externals: new ExternalFiles(full) }, full);
}

/** Decodes a model from memory. The bytes are kept and must not change. `path` locates external data. */
export function decodeModel(bytes: Uint8Array, { path }: { readonly path?: string } = {}): Model {
  const label = path ?? '<bytes>';
  const full = path === undefined ? undefined : resolve(path);
  const externals = full === undefined ? undefined : new ExternalFiles(full);
  return decode(new MemorySource(bytes, label), { label, externals }, full);
}

function decode(source: Source, context: FileContext, path: string | undefined): Model {
  if (source.length === 0) corrupt({ source, start: 0 }, 'The file is empty');
  const message = new Message([{ source, start: 0, end: source.length }]);
  const parsed = message.parse();
  const body = parsed.sub(MODEL.graph);
  if (body === undefined)
    fail('E_CORRUPT_MODEL', {
      message: 'The file holds no graph',
      where: context.label,
      remedy: 'Give an ONNX model (.onnx).',
    });
  const model = setOrigin(new Model(decodeGraph(body, context, undefined)), message);
  model.irVersion = parsed.safeInt(MODEL.irVersion) ?? 0;
  model.producerName = parsed.string(MODEL.producerName) ?? '';
  model.producerVersion = parsed.string(MODEL.producerVersion) ?? '';
  model.domain = parsed.string(MODEL.domain) ?? '';
  model.modelVersion = parsed.int(MODEL.modelVersion) ?? 0n;
  setDoc(model, parsed.string(MODEL.doc));
  for (const [domain, version] of decodeOpsets(parsed, MODEL.opset)) model.opsets.set(domain, version);
  copyInto(model.metadata, decodeEntries(parsed, MODEL.metadata));
  for (const item of parsed.subs(MODEL.functions)) model.functions.push(decodeFunction(item, context));
  model.path = path;
  return model;
}

export function decodeOpsets(parsed: Parsed, number: number): Map<string, number> {
  const opsets = new Map<string, number>();
  for (const message of parsed.subs(number)) {
    const entry = message.parse();
    opsets.set(normalDomain(entry.string(OPSET.domain)), entry.safeInt(OPSET.version) ?? 0);
  }
  return opsets;
}

function decodeFunction(message: Message, context: FileContext): LocalFunction {
  const parsed = message.parse();
  const name = parsed.string(FUNCTION.name) ?? '';
  const where = `function '${name}'`;
  return within(
    () => where,
    () => {
      const graph = new Graph();
      graph.name = name;
      setDoc(graph, parsed.string(FUNCTION.doc));
      copyInto(graph.metadata, decodeEntries(parsed, FUNCTION.metadata));
      const scope = new NameScope(undefined);
      for (const input of parsed.strings(FUNCTION.input))
        graph.addInput(scope.add(new Value({ name: input }), input, `${context.label}, ${where}`));
      decodeNodes(graph, parsed.subs(FUNCTION.node), scope, context);
      for (const item of parsed.subs(FUNCTION.valueInfo)) {
        const info = decodeValueInfo(item);
        const value = scope.own(info.name);
        if (value?.producer !== undefined) describe(value, info);
      }
      for (const output of parsed.strings(FUNCTION.output))
        graph.addOutput(
          output,
          scope.find(output) ??
            fail('E_INVALID_GRAPH', {
              message: `An output reads '${output}', which nothing defines`,
              where: `${context.label}, ${where}`,
            }),
        );
      const attributeDefaults = new Map<string, Attribute>();
      for (const item of parsed.subs(FUNCTION.attributeDefault)) {
        const [key, value] = decodeAttribute(item, context, (body) => decodeGraph(body, context, undefined));
        attributeDefaults.set(key, value);
      }
      const fn: LocalFunction = {
        domain: normalDomain(parsed.string(FUNCTION.domain)),
        name,
        overload: parsed.string(FUNCTION.overload) ?? '',
        graph,
        attributeNames: parsed.strings(FUNCTION.attribute),
        opsets: decodeOpsets(parsed, FUNCTION.opset),
        ...(attributeDefaults.size === 0 ? {} : { attributeDefaults }),
      };
      return setOrigin(fn, message);
    },
  );
}
