/** Streaming, atomic saves: payloads pass through small buffers, never through memory as a whole. */
import { fstatSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Model } from '../model.js';
import { PendingFile } from './atomic.js';
import { encodeRope, MAX_MESSAGE, tooLarge } from './encode.js';
import { type DataFile, type ExternalMode, ModePlacement } from './placement.js';
import { pump } from './pump.js';
import type { Chunk, Rope } from './rope.js';
import { type FileSource, fileAt } from './source.js';

export interface WriteOptions {
  /** Default `keep`: tensors stay where the file had them, new ones go inside while the model stays below 1.9 GB. */
  readonly externalData?: ExternalMode;
  /**
   * How unchanged external files get to another folder. `copy` (default) shares blocks where the file system can.
   * `link` makes a hard link (a copy across file systems): no disk space, and ONNX Runtime reads it, but the `onnx`
   * package of Python (1.23) refuses data files with several links, those of the base model then included.
   */
  readonly weights?: 'link' | 'copy';
  /** Overwrite existing files. */
  readonly force?: boolean;
  /** Called now and then with the bytes written so far and those to write. */
  readonly onProgress?: (written: number, total: number) => void;
  /** Called when all files are complete on disk and none has its name; what it throws leaves everything as it was. */
  readonly beforeCommit?: () => Promise<void>;
  /** Model file size from which `keep` moves payloads to a data file. */
  readonly inlineLimit?: number;
}

export interface WrittenFile {
  readonly path: string;
  readonly bytes: number;
  /** `kept`: the file was already in place and is only referred to. */
  readonly how: 'written' | 'linked' | 'copied' | 'kept';
}

export interface WriteReport {
  readonly path: string;
  /** Size of the model file. */
  readonly bytes: number;
  /** Data files first, the model last. */
  readonly files: readonly WrittenFile[];
}

/** Below the 2 GiB of protobuf, with room for what other tools add. */
const INLINE_LIMIT_BYTES = 1.9e9;

/**
 * Saves a model. All files are complete on disk before the first one gets its name; the model gets its name last.
 * @throws PeftCompileError E_EXISTS, E_IO, E_UNSUPPORTED (2 GiB), E_INVALID_GRAPH.
 */
export async function writeModel(
  model: Model,
  path: string,
  options: WriteOptions = {},
): Promise<WriteReport> {
  const target = resolve(path);
  const folder = dirname(target);
  const { rope, placement } = plan(model, target, options);
  const force = options.force ?? false;
  const pending: { file: PendingFile; how: WrittenFile['how']; bytes: number }[] = [];
  const files: WrittenFile[] = [];
  try {
    // The model's own place is checked before any data is written.
    const modelFile = new PendingFile(target, force);
    try {
      for (const [location, source] of placement.kept) {
        const to = join(folder, location);
        if (isSameFile(to, source)) files.push({ path: to, bytes: source.length, how: 'kept' });
        else pending.push(await bring(source, to, options.weights ?? 'copy', force));
      }
      const { dataFile } = placement;
      const total = rope.length + (dataFile === undefined ? 0 : endOf(dataFile));
      let written = 0;
      const progress = (bytes: number): void => {
        written += bytes;
        options.onProgress?.(written, total);
      };
      if (dataFile !== undefined) {
        const file = new PendingFile(join(folder, dataFile.location), force);
        pending.push({ file, how: 'written', bytes: endOf(dataFile) });
        await pump(chunksOf(dataFile), file, progress);
        await file.finish();
      }
      pending.push({ file: modelFile, how: 'written', bytes: rope.length });
      await pump(rope.chunks, modelFile, progress);
      await modelFile.finish();
    } finally {
      if (pending.at(-1)?.file !== modelFile) modelFile.abort();
    }
    await options.beforeCommit?.();
    for (const { file } of pending) file.commit();
  } catch (cause) {
    for (const { file } of pending) file.revert();
    throw cause;
  }
  for (const { file, how, bytes } of pending) files.push({ path: file.path, bytes, how });
  return { path: target, bytes: rope.length, files };
}

function plan(model: Model, target: string, options: WriteOptions): { rope: Rope; placement: ModePlacement } {
  const mode = options.externalData ?? 'keep';
  const location = `${basename(target)}.data`;
  let placement = new ModePlacement(mode, location);
  let rope = encodeRope(model, placement);
  const limit = Math.min(options.inlineLimit ?? INLINE_LIMIT_BYTES, MAX_MESSAGE);
  if (mode === 'keep' && rope.length > limit) {
    let free = location;
    for (let i = 1; placement.kept.has(free); i++) free = `${basename(target)}.${i}.data`;
    placement = new ModePlacement(mode, free, true);
    rope = encodeRope(model, placement);
  }
  if (rope.length > MAX_MESSAGE) tooLarge(rope.length, target);
  return { rope, placement };
}

function endOf({ parts }: DataFile): number {
  const last = parts.at(-1);
  return last === undefined ? 0 : last.offset + last.data.byteLength;
}

/** The payloads of a data file with the zeros between them. */
function chunksOf({ parts }: DataFile): Chunk[] {
  let position = 0;
  return parts.flatMap(({ offset, data }): Chunk[] => {
    const padding = new Uint8Array(offset - position);
    position = offset + data.byteLength;
    return [
      { kind: 'bytes', bytes: padding },
      { kind: 'data', data },
    ];
  });
}

/** Whether a path leads to a file that is in use. */
export function isSameFile(path: string, source: FileSource): boolean {
  const { dev, ino } = fstatSync(source.descriptor(), { bigint: true });
  return fileAt(path) === `${dev}:${ino}`;
}

/** Hard-links or copies an external file to its place beside the new model. */
async function bring(
  source: FileSource,
  to: string,
  how: 'link' | 'copy',
  force: boolean,
): Promise<{ file: PendingFile; how: WrittenFile['how']; bytes: number }> {
  const file = new PendingFile(to, force);
  try {
    // A hard link to a symbolic link would be a symbolic link again.
    const real = realPath(source.path);
    const intact = real !== undefined && isSameFile(real, source);
    if (how === 'link' && intact && file.linkFrom(real)) return { file, how: 'linked', bytes: source.length };
    if (intact) await file.copyFrom(real);
    else await pump([{ kind: 'span', source, start: 0, end: source.length }], file);
    await file.finish();
    return { file, how: 'copied', bytes: source.length };
  } catch (cause) {
    file.abort();
    throw cause;
  }
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}
