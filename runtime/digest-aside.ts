/** The digest of a model's weights in a thread of its own, for callers with other work to do meanwhile. */
import { existsSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { Model } from '../src/model.js';
import { FileData } from '../src/onnx/index.js';
import { FileSource } from '../src/onnx/source.js';
import { digestWeights, weightParts } from './digest.js';
import { workerFile } from './worker-file.js';

/** Bytes, or a range of a file that has to be the one the model was read from. */
export type DigestPart =
  | Uint8Array
  | { readonly path: string; readonly identity: string; readonly offset: number; readonly length: number };

/** Undefined when the thread could not read what it was to read. */
export interface DigestReply {
  readonly hex: string | undefined;
}

/** Weights below this many bytes are hashed before a thread has started. */
const WORTH_A_THREAD = 32 << 20;

/**
 * The same as `digestWeights`. Whatever keeps the thread from its work, a changed file included, is left to
 * `digestWeights` on this thread, whose errors say what is wrong.
 */
export async function digestAside(model: Model): Promise<string> {
  const parts = partsOf(model);
  const script = workerFile('digest-worker');
  const hex = parts === undefined || !existsSync(script) ? undefined : await hashIn(script, parts);
  return hex === undefined ? digestWeights(model) : `sha256:${hex}`;
}

/** Undefined for weights that are small, or that no other thread can read. */
function partsOf(model: Model): DigestPart[] | undefined {
  const parts: DigestPart[] = [];
  let total = 0;
  for (const part of weightParts(model)) {
    if (part instanceof Uint8Array) parts.push(part);
    else if (part.inline !== undefined) parts.push(part.inline);
    else if (part instanceof FileData && part.source instanceof FileSource) {
      const { path, identity } = part.source;
      parts.push({ path, identity, offset: part.offset, length: part.byteLength });
      total += part.byteLength;
    } else return undefined;
  }
  return total < WORTH_A_THREAD ? undefined : parts;
}

function hashIn(script: string, parts: readonly DigestPart[]): Promise<string | undefined> {
  return new Promise((resolve) => {
    const worker = new Worker(script, { workerData: parts, execArgv: [] });
    worker.once('message', ({ hex }: DigestReply) => resolve(hex));
    worker.once('error', () => resolve(undefined));
    worker.once('exit', () => resolve(undefined));
  });
}
