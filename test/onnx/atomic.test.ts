/** A save either completes or leaves no trace: failing writers, full disks, signals, kills. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { Graph, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { atomicWrite, cleanupPending, readModel, writeModel } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import { scratch } from './support.js';

function big(read: (offset: number, length: number) => Uint8Array, count = 1 << 20): Model {
  const graph = new Graph();
  const tensor: Tensor = { dtype: 'float32', dims: [count], data: { byteLength: count * 4, read } };
  graph.addInitializer(new Value({ name: 'w', tensor }));
  return new Model(graph);
}

describe('atomicWrite', () => {
  it('writes, syncs and renames', async () => {
    const folder = scratch();
    const path = join(folder, 'new', 'a.txt');
    const result = await atomicWrite(path, {}, async (sink) => {
      await sink.write(Buffer.from('hello '));
      await sink.write(Buffer.alloc(600_000, 'x'));
      await sink.write(Buffer.from('!'));
      expect(readdirSync(join(folder, 'new'))).toHaveLength(1);
      return sink.position;
    });
    expect(result).toBe(600_007);
    expect(readFileSync(path, 'utf8')).toBe(`hello ${'x'.repeat(600_000)}!`);
    expect(readdirSync(join(folder, 'new'))).toEqual(['a.txt']);
  });

  it('keeps the order of writes that do not wait for one another, however long they are', async () => {
    const path = join(scratch(), 'a');
    const parts = Array.from({ length: 60 }, (_, i) =>
      Buffer.alloc(i % 3 === 0 ? 700_000 - i : 37 * i * i, i + 1),
    );
    await atomicWrite(path, {}, async (sink) => {
      const writes = parts.map((part) => sink.write(part));
      expect(sink.position).toBe(parts.reduce((sum, part) => sum + part.length, 0));
      await Promise.all(writes);
    });
    expect(Buffer.compare(readFileSync(path), Buffer.concat(parts))).toBe(0);
  });

  it('writes an empty file', async () => {
    const path = join(scratch(), 'empty');
    await atomicWrite(path, {}, () => {});
    expect(readFileSync(path)).toHaveLength(0);
  });

  it('overwrites with force only, even a file that appears meanwhile', async () => {
    const path = join(scratch(), 'a');
    await atomicWrite(path, {}, (sink) => sink.write(Buffer.from('1')));
    const again = atomicWrite(path, {}, (sink) => sink.write(Buffer.from('2')));
    await expect(again).rejects.toMatchObject({ code: 'E_EXISTS', exitCode: 6 });
    await atomicWrite(path, { force: true }, (sink) => sink.write(Buffer.from('3')));
    expect(readFileSync(path, 'utf8')).toBe('3');
    const late = `${path}.late`;
    const race = atomicWrite(late, {}, async (sink) => {
      await sink.write(Buffer.from('mine'));
      writeFileSync(late, 'theirs');
    });
    await expect(race).rejects.toMatchObject({ code: 'E_EXISTS' });
    expect(readFileSync(late, 'utf8')).toBe('theirs');
    expect(readdirSync(join(path, '..')).sort()).toEqual(['a', 'a.late']);
  });

  it('leaves nothing behind when the writer fails', async () => {
    const folder = scratch();
    const path = join(folder, 'a');
    writeFileSync(path, 'old');
    const broken = atomicWrite(path, { force: true }, async (sink) => {
      await sink.write(Buffer.alloc(1 << 20));
      throw new TypeError('writer broke');
    });
    await expect(broken).rejects.toThrow('writer broke');
    expect(readdirSync(folder)).toEqual(['a']);
    expect(readFileSync(path, 'utf8')).toBe('old');
  });

  it('stops a write under way on cleanupPending', async () => {
    const folder = scratch();
    const write = atomicWrite(join(folder, 'a'), {}, async (sink) => {
      await sink.write(Buffer.alloc(1 << 20));
      cleanupPending();
      expect(readdirSync(folder)).toEqual([]);
      await sink.write(Buffer.alloc(1 << 20));
    });
    await expect(write).rejects.toMatchObject({ code: 'E_IO' });
    expect(readdirSync(folder)).toEqual([]);
  });

  it('names the trouble with the target', async () => {
    const folder = scratch();
    writeFileSync(join(folder, 'file'), '');
    for (const target of ['file/below', '.'])
      await expect(atomicWrite(join(folder, target), { force: true }, () => {})).rejects.toMatchObject({
        code: 'E_IO',
        message: expect.stringContaining(folder),
      });
    if (process.getuid?.() === 0) return;
    const locked = join(folder, 'locked');
    mkdirSync(locked);
    chmodSync(locked, 0o500);
    const refused = atomicWrite(join(locked, 'a'), {}, (sink) => sink.write(Buffer.alloc(1 << 20)));
    await expect(refused).rejects.toMatchObject({
      code: 'E_IO',
      message: expect.stringContaining('permission'),
    });
  });
});

describe('writeModel', () => {
  it('leaves nothing behind when a payload cannot be read', async () => {
    const folder = scratch();
    const target = join(folder, 'm.onnx');
    writeFileSync(target, 'old');
    const model = big((offset, length) => {
      if (offset > 2 << 20) throw new Error('gone');
      return new Uint8Array(length);
    });
    for (const externalData of ['keep', 'file'] as const)
      await expect(writeModel(model, target, { externalData, force: true })).rejects.toThrow('gone');
    expect(readdirSync(folder)).toEqual(['m.onnx']);
    expect(readFileSync(target, 'utf8')).toBe('old');
  });

  it('checks the target before it does any work', async () => {
    const target = join(scratch(), 'm.onnx');
    writeFileSync(target, 'old');
    let reads = 0;
    const model = big((_, length) => {
      reads++;
      return new Uint8Array(length);
    });
    await expect(writeModel(model, target, { externalData: 'file' })).rejects.toMatchObject({
      code: 'E_EXISTS',
    });
    expect(reads).toBe(0);
  });

  it('reports progress to the end', async () => {
    const seen: number[] = [];
    const model = big((_, length) => new Uint8Array(length));
    const target = join(scratch(), 'm.onnx');
    const { bytes } = await writeModel(model, target, {
      onProgress: (written, total) => seen.push(written / total),
    });
    expect(seen.at(-1)).toBe(1);
    expect(readFileSync(target)).toHaveLength(bytes);
    expect(readModel(target).graph.initializers.size).toBe(1);
  });
});

/** A process that writes for as long as it is let, 64 KiB at a time. */
const WRITER = `
const { atomicWrite } = await import(process.argv[2]);
try {
  await atomicWrite(process.argv[1], { force: true }, async (sink) => {
    for (let i = 0; i < 1e6; i++) {
      await sink.write(Buffer.alloc(1 << 16, 1));
      if (i === 40) console.log('writing');
      if (i > 40) await new Promise((go) => setTimeout(go, 1));
    }
  });
} catch (error) {
  console.log(error.code + ': ' + error.message);
  process.exit(error.exitCode ?? 99);
}`;

describe.skipIf(process.platform === 'win32')('a writing process', () => {
  let library: string;
  beforeAll(() => {
    const out = join(import.meta.dirname, '../../node_modules/.cache/atomic-test');
    const root = join(import.meta.dirname, '../..');
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    const flags = [
      '--target',
      'es2023',
      '--module',
      'nodenext',
      '--skipLibCheck',
      '--types',
      'node',
      '--outDir',
      out,
    ];
    execFileSync(process.execPath, [tsc, ...flags, join(root, 'src/onnx/atomic.ts')]);
    writeFileSync(join(out, 'package.json'), '{"type":"module"}');
    library = join(out, 'onnx/atomic.js');
  });
  const args = (path: string) => ['--input-type=module', '-e', WRITER, path, library];

  it.each(['SIGINT', 'SIGTERM'] as const)('cleans up on %s and dies of it', async (signal) => {
    const folder = scratch();
    const path = join(folder, 'm.onnx');
    writeFileSync(path, 'old');
    const child = spawn(process.execPath, args(path), { stdio: ['ignore', 'pipe', 'inherit'] });
    const exit = new Promise<NodeJS.Signals | null>((done) => child.on('exit', (_, s) => done(s)));
    await new Promise((ready) => child.stdout.once('data', ready));
    expect(readdirSync(folder)).toHaveLength(2);
    child.kill(signal);
    expect(await exit).toBe(signal);
    expect(readdirSync(folder)).toEqual(['m.onnx']);
    expect(readFileSync(path, 'utf8')).toBe('old');
  });

  it('leaves the target alone when it is killed', async () => {
    const folder = scratch();
    const path = join(folder, 'm.onnx');
    writeFileSync(path, 'old');
    const child = spawn(process.execPath, args(path), { stdio: ['ignore', 'pipe', 'inherit'] });
    const exit = new Promise((done) => child.on('exit', done));
    await new Promise((ready) => child.stdout.once('data', ready));
    child.kill('SIGKILL');
    await exit;
    expect(readFileSync(path, 'utf8')).toBe('old');
  });

  it('reports a disk that takes no more', () => {
    const folder = scratch();
    const path = join(folder, 'm.onnx');
    writeFileSync(path, 'old');
    // A limit on file sizes fails a write half way, as a full disk does.
    const script = `trap '' XFSZ; ulimit -f 2000; exec "$@"`;
    const run = spawnSync('bash', ['-c', script, 'bash', process.execPath, ...args(path)], {
      encoding: 'utf8',
    });
    expect(run.stdout).toMatch(/E_IO: Cannot write the file: .*Nothing was changed/);
    expect(run.status).toBe(3);
    expect(readdirSync(folder)).toEqual(['m.onnx']);
    expect(readFileSync(path, 'utf8')).toBe('old');
  });
});
