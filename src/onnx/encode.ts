/** Models to `ModelProto`. */
import { fail } from '../errors.js';
import type { LocalFunction, Model } from '../model.js';
import { assignNames } from '../names.js';
import { decodeOpsets } from './decode.js';
import { normalDomain } from './decode-graph.js';
import { encodeAttribute } from './encode-attribute.js';
import { GraphEncoder } from './encode-graph.js';
import type { Placement } from './encode-tensor.js';
import { ATTRIBUTE, FUNCTION, MODEL, OPSET } from './fields.js';
import { originOf } from './origin.js';
import { Rewriter } from './rewrite.js';
import { type Chunk, concat, type Encoded, intField, messageField, type Rope, stringField } from './rope.js';
import type { Message, Parsed } from './wire.js';

/** Protobuf implementations, ONNX Runtime's among them, refuse messages from 2 GiB on. */
export const MAX_MESSAGE = 2 ** 31 - 1;

/** The model as pieces whose lengths are known; payloads are not read. */
export function encodeRope(model: Model, placement: Placement): Rope {
  const encoder = new GraphEncoder(assignNames(model), placement);
  return new Rewriter(originOf(model))
    .int(MODEL.irVersion, model.irVersion)
    .string(MODEL.producerName, model.producerName)
    .string(MODEL.producerVersion, model.producerVersion)
    .string(MODEL.domain, model.domain)
    .int(MODEL.modelVersion, model.modelVersion)
    .string(MODEL.doc, model.doc)
    .set(MODEL.graph, messageField(MODEL.graph, encoder.graph(model.graph)))
    .keyed(MODEL.opset, model.opsets, ...opsetCodec(originOf(model), MODEL.opset))
    .entries(MODEL.metadata, model.metadata)
    .messages(
      MODEL.functions,
      model.functions.map((fn) => encodeFunction(fn, encoder)),
    )
    .done().body;
}

function opsetCodec(
  origin: Message | undefined,
  number: number,
): [
  before: () => ReadonlyMap<string, number>,
  read: (entry: Parsed) => [string, number],
  write: (domain: string, version: number) => Rope,
] {
  return [
    () => (origin === undefined ? new Map() : decodeOpsets(origin.parse(), number)),
    (entry) => [normalDomain(entry.string(OPSET.domain)), entry.safeInt(OPSET.version) ?? 0],
    // The empty domain is spelled out, as onnx and torch do.
    (domain, version) => concat([stringField(OPSET.domain, domain), intField(OPSET.version, version)]),
  ];
}

function encodeFunction(fn: LocalFunction, encoder: GraphEncoder): Encoded {
  const origin = originOf(fn);
  const { graph } = fn;
  const rewriter = new Rewriter(origin);
  const defaults = new Map<string, Message>();
  for (const message of rewriter.parsed?.subs(FUNCTION.attributeDefault) ?? [])
    defaults.set(message.parse().string(ATTRIBUTE.name) ?? '', message);
  return rewriter
    .string(FUNCTION.name, fn.name)
    .strings(
      FUNCTION.input,
      graph.inputs.map((value) => encoder.names.value(value)),
    )
    .strings(
      FUNCTION.output,
      graph.outputs.map((output) => encoder.names.output(output)),
    )
    .strings(FUNCTION.attribute, fn.attributeNames)
    .messages(FUNCTION.node, encoder.nodes(graph))
    .string(FUNCTION.doc, graph.doc)
    .keyed(FUNCTION.opset, fn.opsets, ...opsetCodec(origin, FUNCTION.opset))
    .normalString(FUNCTION.domain, fn.domain, normalDomain)
    .messages(
      FUNCTION.attributeDefault,
      [...(fn.attributeDefaults ?? [])].map(([key, value]) =>
        encodeAttribute(key, value, encoder, defaults.get(key)),
      ),
    )
    .set(FUNCTION.valueInfo, encoder.valueInfo(graph, FUNCTION.valueInfo, rewriter.parsed))
    .string(FUNCTION.overload, fn.overload)
    .entries(FUNCTION.metadata, graph.metadata)
    .done();
}

const KEEP: Placement = { initializer: () => 'as-is', attribute: () => 'as-is' };

/**
 * The model as one buffer. Tensors that were external stay references to their files; all others are inside.
 * A model that was decoded and not changed gives exactly the bytes of its file.
 * @throws PeftCompileError E_UNSUPPORTED from 2 GiB on; E_INVALID_GRAPH.
 */
export function encodeModel(model: Model): Uint8Array {
  const rope = encodeRope(model, KEEP);
  if (rope.length > MAX_MESSAGE) tooLarge(rope.length, model.path);
  const bytes = new Uint8Array(rope.length);
  let at = 0;
  for (const chunk of rope.chunks) {
    const size = chunkLength(chunk);
    bytes.set(readChunk(chunk, 0, size), at);
    at += size;
  }
  return bytes;
}

export function tooLarge(length: number, path: string | undefined): never {
  fail('E_UNSUPPORTED', {
    message: `The model takes ${length} bytes, and an ONNX file ends at 2 GiB`,
    ...(path === undefined ? {} : { where: path }),
    remedy: "Save it with writeModel and external data ('file').",
  });
}

export function chunkLength(chunk: Chunk): number {
  if (chunk.kind === 'bytes') return chunk.bytes.length;
  return chunk.kind === 'span' ? chunk.end - chunk.start : chunk.data.byteLength;
}

/** `length` bytes of a piece from `offset`. */
export function readChunk(chunk: Chunk, offset: number, length: number): Uint8Array {
  if (chunk.kind === 'bytes') return chunk.bytes.subarray(offset, offset + length);
  if (chunk.kind === 'span') return chunk.source.read(chunk.start + offset, chunk.start + offset + length);
  return chunk.data.read(offset, length);
}
