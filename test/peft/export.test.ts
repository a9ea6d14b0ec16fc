/** Adapters for other tools: numpy archives, and what ONNX Runtime feeds as an active adapter. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allParams } from '../../passes/adapter-record.js';
import type { AdapterFile } from '../../runtime/adapter-file.js';
import { EXPORT_FORMATS } from '../../runtime/export/formats.js';
import { writeOnnxAdapter } from '../../runtime/export/onnx-adapter/write.js';
import { readPeft } from '../../runtime/peft/read.js';
import { readModel } from '../../src/onnx/index.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { DTYPE_CODES } from '../../src/types.js';
import { goldenPath, modelFixture } from '../helpers/fixtures.js';
import { peftFolder } from './folders.js';

let folder: string;
let adapter: AdapterFile;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'peft-export-'));
  const base = readModel(modelFixture('llama.dynamo.dynamic').path);
  adapter = await readPeft(peftFolder('llama-vblora-topk'), { base });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const format = (id: string) => EXPORT_FORMATS.find((one) => one.id === id)!;
const bytesOf = ({ data }: Tensor) => Buffer.from(data.read(0, data.byteLength));

describe('npz', () => {
  it('holds every parameter as an array of numpy', async () => {
    const out = join(folder, 'adapter.npz');
    await format('npz').write(adapter, out, {});
    const entries = unzip(readFileSync(out));
    const params = allParams(adapter.record);
    expect([...entries.keys()].sort()).toEqual(params.map(({ name }) => `${name}.npy`).sort());
    for (const { name, key, shape, dtype } of params) {
      const array = entries.get(`${name}.npy`)!;
      expect(array.subarray(0, 8)).toEqual(Buffer.from('\x93NUMPY\x01\x00', 'latin1'));
      const length = array.readUInt16LE(8);
      expect((10 + length) % 64).toBe(0);
      const header = array.toString('latin1', 10, 10 + length);
      expect(header.endsWith('\n')).toBe(true);
      expect(header.trim()).toBe(
        `{'descr': '${dtype === 'int64' ? '<i8' : '<f4'}', 'fortran_order': False, 'shape': (${shape.join(', ')}${shape.length === 1 ? ',' : ''}), }`,
      );
      expect(Buffer.compare(array.subarray(10 + length), bytesOf(adapter.tensors.get(key)!)), name).toBe(0);
    }
  });
});

describe('onnx_adapter', () => {
  it('holds every trained parameter, aligned to 8 bytes', async () => {
    const out = join(folder, 'adapter.onnx_adapter');
    await format('onnx_adapter').write(adapter, out, {});
    const read = flatbuffer(readFileSync(out));
    const params = allParams(adapter.record).filter(({ trainable }) => trainable);
    expect(read.map(({ name }) => name)).toEqual(params.map(({ name }) => name));
    for (const [i, { key, shape, dtype }] of params.entries()) {
      const one = read[i]!;
      expect(one.dims).toEqual(shape.map(BigInt));
      expect(one.dtype).toBe(DTYPE_CODES[dtype]);
      expect(one.at % 8).toBe(0);
      expect(Buffer.compare(one.data, bytesOf(adapter.tensors.get(key)!))).toBe(0);
    }
  });

  it('has no scalars', async () => {
    const scalar = new Map([['s', tensorOfBytes('float32', [], new Uint8Array(4))]]);
    await expect(writeOnnxAdapter(join(folder, 'scalar'), scalar)).rejects.toMatchObject({
      code: 'E_UNSUPPORTED',
    });
  });

  const golden = goldenPath('ort-lora/two_params_lora_model.onnx_adapter');
  it.skipIf(golden === undefined)("holds what ONNX Runtime's own file holds, in any order", async () => {
    const theirs = flatbuffer(readFileSync(golden!));
    const tensors = new Map(
      theirs.map(({ name, dims, data }) => [name, tensorOfBytes('float32', dims.map(Number), data)]),
    );
    const out = join(folder, 'golden.onnx_adapter');
    await writeOnnxAdapter(out, tensors);
    const ours = flatbuffer(readFileSync(out));
    expect(ours.map(({ at: _at, ...rest }) => rest)).toEqual(theirs.map(({ at: _at, ...rest }) => rest));
  });
});

/** Entries of a stored archive, read from its central directory; checks the sums. */
function unzip(file: Buffer): Map<string, Buffer> {
  const end = file.length - 22;
  expect(file.readUInt32LE(end)).toBe(0x06054b50);
  const entries = new Map<string, Buffer>();
  let at = file.readUInt32LE(end + 16);
  for (let i = 0; i < file.readUInt16LE(end + 10); i++) {
    expect(file.readUInt32LE(at)).toBe(0x02014b50);
    const size = file.readUInt32LE(at + 24);
    const length = file.readUInt16LE(at + 28);
    const name = file.toString('utf8', at + 46, at + 46 + length);
    const local = file.readUInt32LE(at + 42);
    expect(file.readUInt32LE(local)).toBe(0x04034b50);
    const start = local + 30 + file.readUInt16LE(local + 26) + file.readUInt16LE(local + 28);
    const data = file.subarray(start, start + size);
    expect(crc32(data)).toBe(file.readUInt32LE(at + 16));
    entries.set(name, data);
    at += 46 + length;
  }
  expect(at).toBe(end);
  return entries;
}

/** Parameters of a FlatBuffer, read by its tables: fields may lie anywhere. */
function flatbuffer(file: Buffer) {
  expect(file.toString('latin1', 4, 8)).toBe('TORT');
  const field = (table: number, index: number): number | undefined => {
    const vtable = table - file.readInt32LE(table);
    const offset = 4 + 2 * index < file.readUInt16LE(vtable) ? file.readUInt16LE(vtable + 4 + 2 * index) : 0;
    return offset === 0 ? undefined : table + offset;
  };
  const follow = (at: number | undefined) => at! + file.readUInt32LE(at!);
  const root = file.readUInt32LE(0);
  expect(file.readInt32LE(field(root, 0)!)).toBe(1);
  const vector = follow(field(root, 3));
  return Array.from({ length: file.readUInt32LE(vector) }, (_, i) => {
    const table = follow(vector + 4 + 4 * i);
    const name = follow(field(table, 0));
    const dims = follow(field(table, 1));
    const data = follow(field(table, 3));
    expect((dims + 4) % 8).toBe(0);
    return {
      name: file.toString('utf8', name + 4, name + 4 + file.readUInt32LE(name)),
      dims: Array.from({ length: file.readUInt32LE(dims) }, (_, axis) =>
        file.readBigInt64LE(dims + 4 + 8 * axis),
      ),
      dtype: file.readInt32LE(field(table, 2)!),
      at: data + 4,
      data: file.subarray(data + 4, data + 4 + file.readUInt32LE(data)),
    };
  });
}
