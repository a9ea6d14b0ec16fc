/** External data: containment, bounds, and the ways a model with external data is saved. */
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Value } from '../../src/graph.js';
import { decodeModel, readModel, writeModel } from '../../src/onnx/index.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { info, int, len, model, node, scratch } from './support.js';

const COUNT = 2048;
const payload = Buffer.from(Float32Array.from({ length: COUNT }, (_, i) => Math.sin(i)).buffer);

function bytes(location: string, entries: Record<string, string> = {}): Buffer {
  const all = { location, offset: '64', length: String(payload.length), ...entries };
  const external = Object.entries(all).map(([k, val]) => len(13, [len(1, k), len(2, val)]));
  return model([
    len(11, info('x', 1, [COUNT])),
    len(5, [int(1, COUNT), int(2, 1), len(8, 'w'), ...external, int(14, 1)]),
    len(5, [int(1, 512), int(2, 1), len(8, 'inline'), len(9, payload.subarray(0, 2048))]),
    len(1, node('Add', ['x', 'w'], ['y'])),
    len(12, info('y', 1, [COUNT])),
  ]);
}

function stored(location = 'w.bin', entries: Record<string, string> = {}): { folder: string; path: string } {
  const folder = join(scratch(), 'model');
  mkdirSync(folder);
  writeFileSync(join(folder, 'w.bin'), Buffer.concat([Buffer.alloc(64, 9), payload]));
  writeFileSync(join(folder, 'm.onnx'), bytes(location, entries));
  return { folder, path: join(folder, 'm.onnx') };
}

const weight = (path: string, name = 'w'): Buffer => {
  const value = [...readModel(path).graph.initializers].find((w) => w.name === name)!;
  return Buffer.from(value.tensor!.data.read(0, value.tensor!.data.byteLength));
};

describe('external data', () => {
  it('is read by position', () => {
    const { path } = stored();
    expect(weight(path).equals(payload)).toBe(true);
    const [w] = readModel(path).graph.initializers;
    expect(w!.tensor!.data.inline).toBeUndefined();
    expect(Buffer.from(w!.tensor!.data.read(8, 4)).equals(payload.subarray(8, 12))).toBe(true);
  });

  const refused: [string, Record<string, string>, RegExp][] = [
    ['../model/w.bin', {}, /'\.\.'/],
    ['/etc/passwd', {}, /absolute/],
    ['C:\\w.bin', {}, /absolute/],
    ['sub\\..\\w.bin', {}, /'\.\.'/],
    ['', {}, /empty/],
    ['w.bin\0', {}, /zero byte/],
    ['missing.bin', {}, /missing\.bin.*Put the file at/],
    ['w.bin', { offset: '65' }, /ends at byte/],
    ['w.bin', { length: '4' }, /4 bytes where/],
    ['w.bin', { offset: '-1' }, /not a size/],
    ['w.bin', { offset: '99999999999999999999' }, /not a size/],
  ];
  for (const [location, entries, message] of refused)
    it(`is refused: ${JSON.stringify(location)} ${JSON.stringify(entries)}`, () => {
      const { path } = stored(location, entries);
      expect(() => readModel(path)).toThrowError(
        expect.objectContaining({ code: 'E_EXTERNAL_DATA', message: expect.stringMatching(message) }),
      );
      expect(() => readModel(path)).toThrowError(/tensor 'w'/);
    });

  it('is refused through a symbolic link that leaves the folder, and followed inside it', () => {
    const { folder, path } = stored('link.bin');
    renameSync(join(folder, 'w.bin'), join(folder, '..', 'outside.bin'));
    symlinkSync('../outside.bin', join(folder, 'link.bin'));
    expect(() => readModel(path)).toThrowError(/link out of the model's folder/);
    linkSync(join(folder, '..', 'outside.bin'), join(folder, 'inside.bin'));
    writeFileSync(path, bytes('alias.bin'));
    symlinkSync('inside.bin', join(folder, 'alias.bin'));
    expect(weight(path).equals(payload)).toBe(true);
  });

  it('is found beside the real file of a linked model', () => {
    const { folder, path } = stored('w.bin');
    const cache = join(folder, '..', 'snapshot');
    mkdirSync(cache);
    symlinkSync(path, join(cache, 'm.onnx'));
    symlinkSync(join(folder, 'w.bin'), join(cache, 'w.bin'));
    expect(weight(join(cache, 'm.onnx')).equals(payload)).toBe(true);
  });

  it('needs a path only when it is read', () => {
    const m = decodeModel(bytes('w.bin'));
    const [w] = m.graph.initializers;
    expect(w!.tensor!.dims).toEqual([COUNT]);
    expect(() => w!.tensor!.data.read(0, 4)).toThrowError(
      expect.objectContaining({ code: 'E_EXTERNAL_DATA' }),
    );
  });
});

describe('saving', () => {
  it('in the same folder only refers to the data', async () => {
    const { folder, path } = stored();
    const report = await writeModel(readModel(path), join(folder, 'n.onnx'));
    expect(report.files.map((f) => f.how)).toEqual(['kept', 'written']);
    expect(readFileSync(join(folder, 'n.onnx')).equals(readFileSync(path))).toBe(true);
  });

  it.each(['copy', 'link'] as const)('elsewhere brings the data along: %s', async (weights) => {
    const { folder, path } = stored();
    const target = join(folder, '..', 'out', 'n.onnx');
    const report = await writeModel(readModel(path), target, { weights });
    expect(report.files.map((f) => f.how)).toEqual([weights === 'copy' ? 'copied' : 'linked', 'written']);
    expect(weight(target).equals(payload)).toBe(true);
    expect(statSync(join(folder, 'w.bin')).nlink).toBe(weights === 'link' ? 2 : 1);
  });

  it('does not replace data that is there without force', async () => {
    const { folder, path } = stored();
    const out = join(folder, '..', 'out');
    mkdirSync(out);
    writeFileSync(join(out, 'w.bin'), 'precious');
    await expect(writeModel(readModel(path), join(out, 'm.onnx'))).rejects.toMatchObject({
      code: 'E_EXISTS',
    });
    expect(readdirSync(out)).toEqual(['w.bin']);
    expect(readFileSync(join(out, 'w.bin'), 'utf8')).toBe('precious');
    await writeModel(readModel(path), join(out, 'm.onnx'), { force: true });
    expect(weight(join(out, 'm.onnx')).equals(payload)).toBe(true);
  });

  it('inline makes one file', async () => {
    const { folder, path } = stored();
    const target = join(folder, '..', 'one', 'm.onnx');
    await writeModel(readModel(path), target, { externalData: 'inline' });
    expect(readdirSync(join(folder, '..', 'one'))).toEqual(['m.onnx']);
    expect(weight(target).equals(payload)).toBe(true);
  });

  it('file gathers the payloads in one aligned data file', async () => {
    const { folder, path } = stored();
    const target = join(folder, '..', 'two', 'm.onnx');
    const report = await writeModel(readModel(path), target, { externalData: 'file' });
    expect(report.files.map((f) => [f.path.split('/').at(-1), f.how])).toEqual([
      ['m.onnx.data', 'written'],
      ['m.onnx', 'written'],
    ]);
    expect(weight(target).equals(payload)).toBe(true);
    expect(weight(target, 'inline').equals(payload.subarray(0, 2048))).toBe(true);
    expect(readFileSync(`${target}.data`).subarray(8192).equals(payload.subarray(0, 2048))).toBe(true);
    expect(statSync(target).size).toBeLessThan(1000);
  });

  it('file onto itself reads the old data while it writes the new', async () => {
    const { folder, path } = stored();
    const target = join(folder, '..', 'two', 'm.onnx');
    await writeModel(readModel(path), target, { externalData: 'file' });
    const loaded = readModel(target);
    await writeModel(loaded, target, { externalData: 'file', force: true });
    expect(weight(target).equals(payload)).toBe(true);
    // The handles of the model that was loaded before still read what they read then.
    const [w] = loaded.graph.initializers;
    expect(Buffer.from(w!.tensor!.data.read(0, payload.length)).equals(payload)).toBe(true);
  });

  it('moves payloads out of a model that would become too large for one file', async () => {
    const { folder, path } = stored();
    const m = readModel(path);
    m.graph.addInitializer(new Value({ name: 'new', tensor: tensorOfBytes('float32', [COUNT], payload) }));
    const target = join(folder, 'big.onnx');
    const report = await writeModel(m, target, { inlineLimit: 5000 });
    expect(report.files.map((f) => [f.path.split('/').at(-1), f.how])).toEqual([
      ['w.bin', 'kept'],
      ['big.onnx.data', 'written'],
      ['big.onnx', 'written'],
    ]);
    for (const name of ['w', 'new']) expect(weight(target, name).equals(payload)).toBe(true);
    expect(weight(target, 'inline').equals(payload.subarray(0, 2048))).toBe(true);
  });

  it('keeps reading the data file it opened when that is renamed', () => {
    const { folder, path } = stored();
    const m = readModel(path);
    renameSync(join(folder, 'w.bin'), join(folder, 'v.bin'));
    expect(existsSync(join(folder, 'w.bin'))).toBe(false);
    const [w] = m.graph.initializers;
    expect(Buffer.from(w!.tensor!.data.read(0, payload.length)).equals(payload)).toBe(true);
  });
});
