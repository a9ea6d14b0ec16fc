/**
 * Files appear whole or not at all: written to a temporary file in the target's folder, synced, renamed, the folder
 * synced. A failure, an exception in the writer, SIGINT or SIGTERM removes the temporary file and leaves an existing
 * target as it was.
 */
import {
  closeSync,
  constants,
  fdatasync as fdatasyncCallback,
  fsync as fsyncCallback,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  statSync,
  unlinkSync,
  write as writeCallback,
} from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { fail, PeftCompileError } from '../errors.js';
import { errorCode, reason } from './source.js';

const writeAt = promisify(writeCallback);
const syncData = promisify(fdatasyncCallback);
const syncAll = promisify(fsyncCallback);

/** Small writes are gathered to this many bytes. */
const BUFFER = 256 * 1024;
/** Bytes of a call: for larger ones the system looks for larger runs of free memory, which costs more than the calls. */
const CALL = 512 * 1024;
/** The disk is set to work each time this many bytes have come together. */
const WRITE_BACK = 32 << 20;

/** Where a writer puts its bytes, in order. */
export interface Sink {
  /** Bytes taken so far. */
  readonly position: number;
  /** Bytes that follow those of the call before, which need not be over. They must stay as they are until this one is. */
  write(bytes: Uint8Array): Promise<void>;
}

const pending = new Set<PendingFile>();
let serial = 0;

/** Removes the temporary files of all writes under way. Synchronous, so that signal and exit handlers can call it. */
export function cleanupPending(): void {
  for (const file of [...pending]) file.abort();
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

function onSignal(signal: NodeJS.Signals): void {
  cleanupPending();
  // Without another listener the signal would be swallowed: let it do what it does by default.
  if (process.listenerCount(signal) === 0) process.kill(process.pid, signal);
}

function track(file: PendingFile): void {
  if (pending.size === 0) {
    for (const signal of SIGNALS) process.once(signal, onSignal);
    process.once('exit', cleanupPending);
  }
  pending.add(file);
}

function untrack(file: PendingFile): void {
  pending.delete(file);
  if (pending.size > 0) return;
  for (const signal of SIGNALS) process.removeListener(signal, onSignal);
  process.removeListener('exit', cleanupPending);
}

/** A file in the making. Ends with `commit` or `abort`. */
export class PendingFile implements Sink {
  readonly path: string;
  readonly temporary: string;
  readonly #force: boolean;
  #fd: number | undefined;
  #state: 'open' | 'committed' | 'aborted' = 'open';
  #created = false;
  /** Calls in flight that use the descriptor. */
  #calls = 0;
  #handedOver = 0;
  #writeBack: Promise<void> | undefined;
  #buffer = new Uint8Array(BUFFER);
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];
  #filled = 0;
  /** Where in the file the next bytes go that are handed over. */
  #next = 0;
  #written = 0;
  /** What went wrong first: of several writes under way the others then fail for no reason of their own. */
  #cause: unknown;

  constructor(path: string, force: boolean) {
    this.path = resolve(path);
    this.#force = force;
    checkTarget(this.path, force);
    this.temporary = join(dirname(this.path), `.${basename(this.path)}.tmp-${process.pid}-${++serial}`);
    track(this);
    try {
      mkdirSync(dirname(this.path), { recursive: true });
    } catch (cause) {
      this.#failed(cause);
    }
  }

  get position(): number {
    return this.#next + this.#filled;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (bytes.length < BUFFER - this.#filled) {
      this.#buffer.set(bytes, this.#filled);
      this.#filled += bytes.length;
      return;
    }
    const flushed = this.#flush();
    if (bytes.length < BUFFER) {
      this.#buffer.set(bytes);
      this.#filled = bytes.length;
      await flushed;
    } else await Promise.all([flushed, this.#put(bytes)]);
  }

  /** Makes the temporary file a hard link to an existing file. False when the file system cannot. */
  linkFrom(path: string): boolean {
    try {
      linkSync(path, this.temporary);
      return true;
    } catch {
      return false;
    }
  }

  /** Fills the temporary file with a copy, shared on disk where the file system can. */
  async copyFrom(path: string): Promise<void> {
    try {
      await copyFile(path, this.temporary, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
      this.#fd = openSync(this.temporary, 'r');
    } catch (cause) {
      this.#failed(cause);
    }
  }

  /** Flushes everything to the disk; after this only renames are left. */
  async finish(): Promise<void> {
    await this.#flush();
    if (this.#state !== 'open') this.#failed(new Error('the write was interrupted'));
    try {
      if (
        this.#fd === undefined &&
        this.#written === 0 &&
        statSync(this.temporary, { throwIfNoEntry: false }) === undefined
      )
        this.#fd = openSync(this.temporary, 'wx');
      if (this.#fd !== undefined) {
        const fd = this.#fd;
        await this.#using(fd, async () => {
          await this.#writeBack;
          await syncAll(fd);
        });
        if (this.#state !== 'open') throw new Error('the write was interrupted');
        closeSync(fd);
        this.#fd = undefined;
      }
    } catch (cause) {
      this.#failed(cause);
    }
  }

  /** Moves the finished file to its place. */
  commit(): void {
    if (this.#state !== 'open') this.#failed(new Error('the write was interrupted'));
    try {
      this.#created = statSync(this.path, { throwIfNoEntry: false }) === undefined;
      if (this.#force || !this.#linkExclusively()) renameSync(this.temporary, this.path);
    } catch (cause) {
      if (errorCode(cause) === 'EEXIST') {
        this.abort();
        exists(this.path);
      }
      this.#failed(cause);
    }
    this.#state = 'committed';
    untrack(this);
    syncFolder(dirname(this.path));
  }

  /** A link fails where a rename would silently replace a file that appeared meanwhile. */
  #linkExclusively(): boolean {
    try {
      linkSync(this.temporary, this.path);
    } catch (cause) {
      if (errorCode(cause) === 'EEXIST') throw cause;
      return false;
    }
    unlinkSync(this.temporary);
    return true;
  }

  /** Drops the temporary file. */
  abort(): void {
    if (this.#state !== 'open') return;
    this.#state = 'aborted';
    untrack(this);
    // A call in flight closes the descriptor itself, so that its number is not given to another file meanwhile.
    if (this.#fd !== undefined && this.#calls === 0) closeQuietly(this.#fd);
    this.#fd = undefined;
    removeIfThere(this.temporary);
  }

  /** Takes a committed file back if it replaced nothing. */
  revert(): void {
    if (this.#state === 'committed' && this.#created) removeIfThere(this.path);
    this.abort();
  }

  async #flush(): Promise<void> {
    if (this.#filled === 0) return;
    const full = this.#buffer;
    const bytes = full.subarray(0, this.#filled);
    this.#buffer = this.#spare.pop() ?? new Uint8Array(BUFFER);
    this.#filled = 0;
    await this.#put(bytes);
    this.#spare.push(full);
  }

  async #put(bytes: Uint8Array): Promise<void> {
    const start = this.#next;
    this.#next += bytes.length;
    try {
      for (let done = 0; done < bytes.length; ) {
        if (this.#state !== 'open') throw new Error('the write was interrupted');
        this.#fd ??= openSync(this.temporary, 'wx');
        const fd = this.#fd;
        const { bytesWritten } = await this.#using(fd, () =>
          writeAt(fd, bytes, done, Math.min(CALL, bytes.length - done), start + done),
        );
        done += bytesWritten;
      }
      this.#written += bytes.length;
      this.#startWriteBack();
    } catch (cause) {
      this.#failed(cause);
    }
  }

  /** Lets the disk work while the next bytes are made; `finish` waits for it, and for all the rest. */
  #startWriteBack(): void {
    const fd = this.#fd;
    if (fd === undefined || this.#writeBack !== undefined || this.#written - this.#handedOver < WRITE_BACK)
      return;
    this.#handedOver = this.#written;
    // What the disk refuses now it refuses again when the file is finished.
    this.#writeBack = this.#using(fd, () => syncData(fd))
      .catch(() => {})
      .finally(() => {
        this.#writeBack = undefined;
      });
  }

  /** A call that uses the descriptor. The last one to end closes it after an abort. */
  async #using<T>(fd: number, call: () => Promise<T>): Promise<T> {
    this.#calls++;
    try {
      return await call();
    } finally {
      this.#calls--;
      if (this.#state !== 'open' && this.#calls === 0) closeQuietly(fd);
    }
  }

  #failed(error: unknown): never {
    this.abort();
    this.#cause ??= error;
    const cause = this.#cause;
    const code = errorCode(cause);
    fail('E_IO', {
      message: `Cannot write the file: ${reason(cause)}`,
      where: this.path,
      remedy: `${REMEDIES[code ?? ''] ?? 'Check the target folder.'} Nothing was changed.`,
      cause,
    });
  }
}

const REMEDIES: Readonly<Record<string, string>> = {
  ENOSPC: 'Free some space or choose another folder.',
  EDQUOT: 'Free some space or choose another folder.',
  EFBIG: 'Raise the file size limit or choose another folder.',
  EACCES: 'Choose a folder you may write to.',
  EPERM: 'Choose a folder you may write to.',
  EROFS: 'Choose a folder you may write to.',
  ENOTDIR: 'Choose a path whose parent is a folder.',
};

function checkTarget(path: string, force: boolean): void {
  let stat: ReturnType<typeof statSync> | undefined;
  try {
    stat = statSync(path, { throwIfNoEntry: false });
  } catch {
    // Whatever is wrong with the path shows again, with its own message, when the file is opened.
    return;
  }
  if (stat === undefined) return;
  if (stat.isDirectory())
    fail('E_IO', { message: 'The target is a folder', where: path, remedy: 'Give the path of a file.' });
  if (!force) exists(path);
}

function exists(path: string): never {
  fail('E_EXISTS', {
    message: 'The file exists already',
    where: path,
    remedy: 'Choose another name, or overwrite it with --force.',
  });
}

function closeQuietly(fd: number): void {
  try {
    closeSync(fd);
  } catch {
    // The descriptor is of no more use either way.
  }
}

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It was never created, or is gone.
  }
}

function syncFolder(folder: string): void {
  try {
    const fd = openSync(folder, 'r');
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch {
    // Not every platform can sync a folder; the rename itself has succeeded.
  }
}

/**
 * Writes one file atomically. The callback gets a sink for the bytes; its result is passed on.
 * @throws PeftCompileError E_EXISTS without `force`; E_IO. Errors of the callback pass through.
 */
export async function atomicWrite<T = void>(
  path: string,
  { force = false }: { readonly force?: boolean },
  write: (sink: Sink) => Promise<T> | T,
): Promise<T> {
  const file = new PendingFile(path, force);
  try {
    const result = await write(file);
    await file.finish();
    file.commit();
    return result;
  } catch (cause) {
    file.abort();
    if (cause instanceof PeftCompileError || errorCode(cause) === undefined) throw cause;
    fail('E_IO', { message: `Cannot write the file: ${reason(cause)}`, where: path, cause });
  }
}
