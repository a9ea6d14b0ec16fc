/** Shared libraries, found the way the dynamic linker of Linux finds them. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Surroundings } from './provider.js';

/** Path of a library on the search path; undefined when it is nowhere. */
export function findLibrary(name: string, around: Surroundings): string | undefined {
  for (const folder of searchPath(around)) {
    const path = join(folder, name);
    if (existsSync(path)) return path;
  }
  return undefined;
}

/** LD_LIBRARY_PATH, then the folders that the linker is configured with. */
function searchPath({ env, libraryFolders }: Surroundings): string[] {
  return [...(env.LD_LIBRARY_PATH ?? '').split(':').filter((folder) => folder !== ''), ...libraryFolders];
}

/** Folders that `/etc/ld.so.conf` names, and the standard ones. */
export function linkerFolders(root = '/'): string[] {
  const triplets = ['x86_64-linux-gnu', 'aarch64-linux-gnu'];
  const standard = [
    ...triplets.flatMap((triplet) => [`lib/${triplet}`, `usr/lib/${triplet}`]),
    'lib64',
    'usr/lib64',
    'lib',
    'usr/lib',
    'usr/local/lib',
  ].map((folder) => join(root, folder));
  return [...new Set([...configured(join(root, 'etc/ld.so.conf'), root), ...standard])];
}

/** `include` lines hold one pattern with `*` in the last component. */
function configured(file: string, root: string, depth = 0): string[] {
  if (depth > 4 || !existsSync(file) || !statSync(file).isFile()) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '')
    .flatMap((line) => {
      const included = /^include\s+(.*)$/.exec(line)?.[1];
      if (included === undefined) return [join(root, line)];
      const pattern = resolve(root, 'etc', included.replace(/^\//, `${root}/`));
      const folder = pattern.slice(0, pattern.lastIndexOf('/'));
      const ending = pattern.slice(pattern.lastIndexOf('*') + 1);
      return existsSync(folder)
        ? readdirSync(folder)
            .filter((name) => name.endsWith(ending))
            .sort()
            .flatMap((name) => configured(join(folder, name), root, depth + 1))
        : [];
    });
}

/** Sonames a shared library asks for (DT_NEEDED), read from its ELF file; empty for files that are none. */
export function neededLibraries(path: string): string[] {
  const bytes = readFileSync(path);
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2) return [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u64 = (at: number) => Number(view.getBigUint64(at, true));
  try {
    const [table, size, count] = [u64(32), view.getUint16(54, true), view.getUint16(56, true)];
    const segments = Array.from({ length: count }, (_, i) => table + i * size).map((at) => ({
      type: view.getUint32(at, true),
      offset: u64(at + 8),
      address: u64(at + 16),
      bytes: u64(at + 32),
    }));
    const dynamic = segments.find(({ type }) => type === 2);
    if (dynamic === undefined) return [];
    const entries: [number, number][] = [];
    for (let at = dynamic.offset; at < dynamic.offset + dynamic.bytes; at += 16)
      entries.push([u64(at), u64(at + 8)]);
    const strings = entries.find(([tag]) => tag === 5)?.[1];
    const home = segments.find(
      ({ type, address, bytes: length }) =>
        type === 1 && strings !== undefined && strings >= address && strings < address + length,
    );
    if (strings === undefined || home === undefined) return [];
    const base = strings - home.address + home.offset;
    return entries
      .filter(([tag]) => tag === 1)
      .map(([, offset]) => {
        const start = base + offset;
        return bytes.toString('utf8', start, bytes.indexOf(0, start));
      });
  } catch (error) {
    if (error instanceof RangeError) return [];
    throw error;
  }
}
