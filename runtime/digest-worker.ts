/** The thread that `digest-aside.ts` hashes in. It reads files by itself, and only those that are still the same. */
import { createHash } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import { FileSource } from '../src/onnx/source.js';
import { stretches } from '../src/stretches.js';
import type { DigestPart, DigestReply } from './digest-aside.js';

/** Bytes read at once: they are still in the processor's cache when they are hashed. */
const PIECE = 256 * 1024;

const hash = createHash('sha256');
const buffer = new Uint8Array(PIECE);
const sources = new Map<string, FileSource>();

function update(part: DigestPart): void {
  if (part instanceof Uint8Array) {
    hash.update(part);
    return;
  }
  const { path, identity, offset, length } = part;
  let source = sources.get(path);
  if (source === undefined) {
    source = new FileSource(path);
    sources.set(path, source);
  }
  if (source.identity !== identity) throw new Error('the file changed');
  for (const { at, size } of stretches(length, PIECE)) {
    const bytes = buffer.subarray(0, size);
    source.readInto(bytes, offset + at);
    hash.update(bytes);
  }
}

function reply(message: DigestReply): void {
  parentPort?.postMessage(message);
}

try {
  for (const part of workerData as readonly DigestPart[]) update(part);
  reply({ hex: hash.digest('hex') });
} catch {
  reply({ hex: undefined });
}
