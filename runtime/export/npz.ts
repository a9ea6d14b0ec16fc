/** `.npz`: a zip archive of numpy arrays, stored and not compressed, as `numpy.savez` writes it. */
import { crc32 } from 'node:zlib';
import { fail } from '../../src/errors.js';
import { atomicWrite } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import type { DType } from '../../src/types.js';
import { loadTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';

/** Type codes of numpy. It has no bfloat16: that is widened. */
const CODES: Partial<Record<DType, string>> = {
  float16: '<f2',
  float32: '<f4',
  float64: '<f8',
  int8: '|i1',
  int16: '<i2',
  int32: '<i4',
  int64: '<i8',
  uint8: '|u1',
  uint16: '<u2',
  uint32: '<u4',
  uint64: '<u8',
  bool: '|b1',
};

/** The archive's 32-bit offsets. */
const LIMIT = 2 ** 32 - 1;

interface Entry {
  readonly name: Uint8Array;
  readonly crc: number;
  readonly size: number;
  readonly offset: number;
}

/** Writes arrays by name. Throws E_UNSUPPORTED for types that numpy lacks and above 4 GiB, E_EXISTS. */
export async function writeNpz(
  path: string,
  tensors: ReadonlyMap<string, Tensor>,
  { force = false }: { readonly force?: boolean } = {},
): Promise<void> {
  await atomicWrite(path, { force }, async (sink) => {
    const entries: Entry[] = [];
    for (const [key, tensor] of tensors) {
      const array = await arrayOf(key, tensor);
      const name = new TextEncoder().encode(`${key}.npy`);
      const size = array.reduce((sum, part) => sum + part.length, 0);
      const crc = array.reduce((value, part) => crc32(part, value), 0);
      if (sink.position + size > LIMIT)
        fail('E_UNSUPPORTED', {
          message: 'The archive is larger than 4 GiB',
          where: path,
          remedy: 'Export it as safetensors',
        });
      entries.push({ name, crc, size, offset: sink.position });
      await sink.write(localHeader({ name, crc, size }));
      for (const part of array) await sink.write(part);
    }
    const start = sink.position;
    for (const entry of entries) await sink.write(centralHeader(entry));
    await sink.write(endRecord(entries.length, start, sink.position - start));
  });
}

/** Header and payload of a `.npy`. */
async function arrayOf(key: string, tensor: Tensor): Promise<Uint8Array[]> {
  const loaded = await loadTensor(tensor);
  const host =
    loaded.dtype === 'bfloat16' ? tensorOfNumbers('float32', loaded.dims, numbersOf(loaded)) : loaded;
  const code =
    CODES[host.dtype] ??
    fail('E_UNSUPPORTED', {
      message: `numpy has no ${host.dtype}`,
      where: key,
      remedy: 'Export it as safetensors',
    });
  const shape = host.dims.length === 1 ? `(${host.dims[0]},)` : `(${host.dims.join(', ')})`;
  const text = `{'descr': '${code}', 'fortran_order': False, 'shape': ${shape}, }`;
  const length = Math.ceil((10 + text.length + 1) / 64) * 64 - 10;
  const header = new Uint8Array(10 + length);
  header.set([0x93, ...new TextEncoder().encode('NUMPY'), 1, 0]);
  new DataView(header.buffer).setUint16(8, length, true);
  header.set(new TextEncoder().encode(`${text.padEnd(length - 1)}\n`), 10);
  return [header, host.data];
}

/** Version, flags (UTF-8 names), method (stored), and the first day of the format's calendar. */
const COMMON = [20, 0x800, 0, 0, 0x21] as const;

function fixed(size: number, tail: Uint8Array, fill: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(size + tail.length);
  fill(new DataView(bytes.buffer));
  bytes.set(tail, size);
  return bytes;
}

function localHeader({ name, crc, size }: Omit<Entry, 'offset'>): Uint8Array {
  return fixed(30, name, (view) => {
    view.setUint32(0, 0x04034b50, true);
    for (const [i, value] of COMMON.entries()) view.setUint16(4 + 2 * i, value, true);
    for (const [i, value] of [crc, size, size].entries()) view.setUint32(14 + 4 * i, value, true);
    view.setUint16(26, name.length, true);
  });
}

function centralHeader({ name, crc, size, offset }: Entry): Uint8Array {
  return fixed(46, name, (view) => {
    view.setUint32(0, 0x02014b50, true);
    view.setUint16(4, 20, true);
    for (const [i, value] of COMMON.entries()) view.setUint16(6 + 2 * i, value, true);
    for (const [i, value] of [crc, size, size].entries()) view.setUint32(16 + 4 * i, value, true);
    view.setUint16(28, name.length, true);
    view.setUint32(42, offset, true);
  });
}

function endRecord(count: number, start: number, size: number): Uint8Array {
  return fixed(22, new Uint8Array(0), (view) => {
    view.setUint32(0, 0x06054b50, true);
    view.setUint16(8, count, true);
    view.setUint16(10, count, true);
    view.setUint32(12, size, true);
    view.setUint32(16, start, true);
  });
}
