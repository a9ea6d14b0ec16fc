/** Where encoded bytes come from: memory, or a file that is read by position and never loaded whole. */
import { closeSync, fstatSync, openSync, read as readCallback, readSync, statSync } from 'node:fs';
import { promisify } from 'node:util';
import { fail, PeftCompileError } from '../errors.js';

const readAt = promisify(readCallback);

/** Bytes fetched per read while the structure of a file is scanned. */
const WINDOW = 256 * 1024;
/** Files kept open at once; models may have one external file per tensor. */
const MAX_OPEN = 48;
/** Bytes that are read quicker than another thread is asked to. */
const SHORT = 1 << 16;
/** Largest single read that Node accepts everywhere. */
const MAX_READ = 1 << 30;

/** Random access to bytes. Positions are absolute. */
export abstract class Source {
  /** Name for messages. */
  abstract readonly label: string;
  abstract readonly length: number;
  protected window: Uint8Array = new Uint8Array(0);
  protected base = 0;

  /** Makes `window` cover `position`. */
  protected abstract load(position: number): void;
  /** Fresh or shared bytes of [start, end); callers do not write into them. */
  abstract read(start: number, end: number): Uint8Array;

  /** The byte at a position below `length`. */
  byteAt(position: number): number {
    const index = position - this.base;
    if (index >= 0 && index < this.window.length) return this.window[index] as number;
    this.load(position);
    return this.window[position - this.base] as number;
  }

  /** Bytes of [start, end), from the window when it covers them. Copy before keeping them for long. */
  view(start: number, end: number): Uint8Array {
    if (start === end) return new Uint8Array(0);
    if (end - start <= WINDOW / 4) {
      if (start < this.base || end > this.base + this.window.length) this.load(start);
      if (end <= this.base + this.window.length)
        return this.window.subarray(start - this.base, end - this.base);
    }
    return this.read(start, end);
  }
}

export class MemorySource extends Source {
  constructor(
    readonly bytes: Uint8Array,
    readonly label: string,
  ) {
    super();
    this.window = bytes;
  }
  get length(): number {
    return this.bytes.length;
  }
  protected load(): void {}
  read(start: number, end: number): Uint8Array {
    return this.bytes.subarray(start, end);
  }
}

/** Open descriptors in order of last use. */
const open = new Map<FileSource, number>();

/** Closes descriptors of sources that were dropped without `close`. */
const collector = new FinalizationRegistry<{ fd: number | undefined }>((slot) => {
  if (slot.fd !== undefined) closeSync(slot.fd);
});

/**
 * A file read by position. The descriptor stays open so that the bytes survive a later replacement of the file by
 * rename; if it had to be closed in between, a changed file is an error instead of wrong numbers.
 */
export class FileSource extends Source {
  readonly length: number;
  /** Device, inode, size and time of change: what a file is known by when it is opened again. */
  readonly identity: string;
  readonly #slot: { fd: number | undefined } = { fd: undefined };
  /** Descriptors that reads in other threads use, and how many. */
  readonly #inUse = new Map<number, number>();

  constructor(
    readonly path: string,
    readonly label: string = path,
  ) {
    super();
    const fd = this.#open();
    const stat = fstatSync(fd);
    if (!stat.isFile()) {
      this.close();
      fail('E_IO', { message: 'Not a regular file', where: label, remedy: 'Give the path of a file.' });
    }
    this.length = stat.size;
    this.identity = identityOf(stat);
    collector.register(this, this.#slot);
  }

  /** The open descriptor, reopened if it had to make room. */
  descriptor(): number {
    const fd = this.#slot.fd;
    if (fd === undefined) {
      const again = this.#open();
      if (identityOf(fstatSync(again)) !== this.identity) {
        this.close();
        fail('E_IO', {
          message: 'The file changed while it was in use',
          where: this.label,
          remedy: 'Load the model again.',
        });
      }
      return again;
    }
    open.delete(this);
    open.set(this, fd);
    return fd;
  }

  close(): void {
    if (this.#slot.fd === undefined) return;
    open.delete(this);
    // The last read that uses a descriptor closes it, so that its number is not given to another file meanwhile.
    if (!this.#inUse.has(this.#slot.fd)) closeSync(this.#slot.fd);
    this.#slot.fd = undefined;
  }

  protected load(position: number): void {
    const size = Math.min(WINDOW, this.length - position);
    this.window = this.#pread(position, size);
    this.base = position;
  }

  read(start: number, end: number): Uint8Array {
    return this.#pread(start, end - start);
  }

  /** Reads into `target` from `position`; fills it whole. */
  readInto(target: Uint8Array, position: number): void {
    const fd = this.descriptor();
    try {
      for (let done = 0; done < target.length; ) {
        const count = readSync(fd, target, done, lengthOf(target, done), position + done);
        done += this.#some(count);
      }
    } catch (cause) {
      this.#unreadable(cause);
    }
  }

  /** The same in another thread, unless it is so little that the way there takes longer. */
  async readAside(target: Uint8Array, position: number): Promise<void> {
    if (target.length <= SHORT) {
      this.readInto(target, position);
      return;
    }
    const fd = this.descriptor();
    this.#inUse.set(fd, (this.#inUse.get(fd) ?? 0) + 1);
    try {
      for (let done = 0; done < target.length; ) {
        const { bytesRead } = await readAt(fd, target, done, lengthOf(target, done), position + done);
        done += this.#some(bytesRead);
      }
    } catch (cause) {
      this.#unreadable(cause);
    } finally {
      const others = (this.#inUse.get(fd) ?? 1) - 1;
      if (others > 0) this.#inUse.set(fd, others);
      else {
        this.#inUse.delete(fd);
        if (this.#slot.fd !== fd) closeSync(fd);
      }
    }
  }

  #some(count: number): number {
    if (count === 0)
      fail('E_IO', {
        message: 'The file became shorter while it was in use',
        where: this.label,
        remedy: 'Load the model again.',
      });
    return count;
  }

  #unreadable(cause: unknown): never {
    if (cause instanceof PeftCompileError) throw cause;
    return fail('E_IO', { message: `Cannot read the file: ${reason(cause)}`, where: this.label, cause });
  }

  #pread(position: number, size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    this.readInto(bytes, position);
    return bytes;
  }

  #open(): number {
    let fd: number;
    try {
      fd = openSync(this.path, 'r');
    } catch (cause) {
      fail('E_IO', {
        message: `Cannot read the file: ${reason(cause)}`,
        where: this.label,
        remedy: 'Check the path and its permissions.',
        cause,
      });
    }
    this.#slot.fd = fd;
    open.set(this, fd);
    for (const other of open.keys()) {
      if (open.size <= MAX_OPEN) break;
      other.close();
    }
    return fd;
  }
}

/** Bytes of the next read into a target that is filled so far. */
function lengthOf(target: Uint8Array, filled: number): number {
  return Math.min(MAX_READ, target.length - filled);
}

function identityOf(stat: { dev: number; ino: number; size: number; mtimeMs: number }): string {
  return `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeMs}`;
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'it does not exist',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EISDIR: 'it is a folder',
  ENOTDIR: 'a part of the path is not a folder',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'the file system does not take files of this size',
  EROFS: 'the file system is read-only',
  EMFILE: 'too many open files',
  EIO: 'the device reports an error',
};

/** The same for all names of one file; undefined where nothing is, or what is there cannot be reached. */
export function fileAt(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

/** The system's error in words. */
export function reason(cause: unknown): string {
  if (cause instanceof PeftCompileError) return cause.message;
  const code = errorCode(cause);
  if (code !== undefined) return REASONS[code] ?? code;
  return cause instanceof Error ? cause.message : String(cause);
}

export function errorCode(cause: unknown): string | undefined {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  return typeof code === 'string' ? code : undefined;
}
