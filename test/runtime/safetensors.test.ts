import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { numbersOf, tensorOfNumbers } from '../../runtime/host-tensor.js';
import {
  decodeSafetensors,
  encodeSafetensors,
  readSafetensors,
  writeSafetensors,
} from '../../runtime/safetensors.js';
import { PeftCompileError } from '../../src/errors.js';
import { byteSize, type DType } from '../../src/types.js';
import { refuses } from './refuses.js';

const folder = mkdtempSync(join(tmpdir(), 'safetensors-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A file with a given header, to say what a writer never would. */
function file(header: unknown, data = new Uint8Array(0)): Uint8Array {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return new Uint8Array(Buffer.concat([length, json, data]));
}

const weights = new Map([
  ['b.half', tensorOfNumbers('float16', [3], [0.5, -2, 65504])],
  ['a.weight', tensorOfNumbers('float32', [2, 2], [1, -2, 3.5, 1e-30])],
  ['c.ids', tensorOfNumbers('int64', [2], [2n ** 62n, -1n])],
  ['d.flag', tensorOfNumbers('bool', [3], [1, 0, 1])],
  ['e.scalar', tensorOfNumbers('bfloat16', [], [3])],
  ['f.empty', tensorOfNumbers('float32', [0, 4], [])],
]);

describe('safetensors', () => {
  it('writes what it reads, and the same bytes for any order of the tensors', async () => {
    const path = join(folder, 'model.safetensors');
    await writeSafetensors(path, weights, { metadata: { format: 'pt', base: 'sha256:ä' } });
    const { tensors, metadata } = readSafetensors(path);
    expect(Object.fromEntries(metadata)).toEqual({ format: 'pt', base: 'sha256:ä' });
    expect([...tensors.keys()].sort()).toEqual([...weights.keys()].sort());
    for (const [name, tensor] of weights) {
      const read = tensors.get(name)!;
      expect([read.dtype, read.dims]).toEqual([tensor.dtype, tensor.dims]);
      expect(Buffer.from(read.data.read(0, read.data.byteLength))).toEqual(Buffer.from(tensor.data));
    }
    const reversed = new Map([...weights].reverse());
    const bytes = await encodeSafetensors(reversed, { base: 'sha256:ä', format: 'pt' });
    expect(Buffer.from(bytes)).toEqual(readFileSync(path));
    // Every tensor starts at a multiple of its element size.
    const start = 8 + Number(Buffer.from(bytes).readBigUInt64LE(0));
    expect(start % 8).toBe(0);
  });

  it('does not overwrite, and leaves nothing half-written', async () => {
    const path = join(folder, 'kept.safetensors');
    await writeSafetensors(path, weights);
    const before = readFileSync(path);
    await refuses(writeSafetensors(path, new Map()), 'E_EXISTS');
    const broken = {
      dtype: 'float32' as const,
      dims: [4],
      data: {
        byteLength: 16,
        read: () => {
          throw new Error('lost');
        },
      },
    };
    await expect(writeSafetensors(path, new Map([['x', broken]]), { force: true })).rejects.toThrow();
    expect(readFileSync(path)).toEqual(before);
    expect(readdirSync(folder).filter((name) => name.includes('kept'))).toEqual(['kept.safetensors']);
  });

  it('reads sharded checkpoints, and no files outside their folder', async () => {
    await writeSafetensors(join(folder, 's-1.safetensors'), new Map([['x', weights.get('a.weight')!]]));
    await writeSafetensors(join(folder, 's-2.safetensors'), new Map([['y', weights.get('b.half')!]]));
    const index = join(folder, 'model.safetensors.index.json');
    const write = (map: unknown) => writeFileSync(index, JSON.stringify({ weight_map: map }));
    write({ x: 's-1.safetensors', y: 's-2.safetensors' });
    const { tensors } = readSafetensors(index);
    const y = tensors.get('y')!;
    expect([...numbersOf({ ...y, data: y.data.read(0, 6) })]).toEqual([0.5, -2, 65504]);
    write({ x: '../s-1.safetensors' });
    await refuses(() => readSafetensors(index), 'E_INVALID_DATA', /not a file next to/);
    write({ z: 's-1.safetensors' });
    await refuses(() => readSafetensors(index), 'E_INVALID_DATA', /does not hold tensor 'z'/);
  });

  it('says what is wrong with a file', async () => {
    const f32 = (begin: number, end: number, shape = [(end - begin) / 4]) => ({
      dtype: 'F32',
      shape,
      data_offsets: [begin, end],
    });
    const eight = new Uint8Array(8);
    const cases: [Uint8Array, RegExp][] = [
      [new Uint8Array(3), /header length/],
      [Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 255, 1), /header claims 18446744073709551615/],
      [file('{"a":'), /no JSON/],
      [file('[]'), /no JSON object/],
      [file({ a: { ...f32(0, 8), dtype: 'F31' } }, eight), /unknown dtype "F31"/],
      [file({ a: f32(0, 8, [3]) }, eight), /takes 12 bytes as F32\[3\], its offsets give 8/],
      [file({ a: f32(0, 8, [-2]) }, eight), /no valid shape/],
      [file({ a: f32(0, 8), b: f32(4, 8) }, eight), /overlaps/],
      [file({ a: f32(4, 8) }, eight), /belong to no tensor/],
      [file({ a: f32(0, 4) }, eight), /take 4 bytes, the file holds 8/],
      [file({ a: f32(0, 16) }, eight), /take 16 bytes/],
      [file({ a: f32(8, 0, [0]) }, eight), /offsets/],
      [file({ a: f32(0, 2 ** 54, [2 ** 52]) }, eight), /offsets|take|shape/],
      [
        file(
          '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
          eight,
        ),
        /two entries 'a'/,
      ],
      [file({ __metadata__: { n: 1 } }), /'n' is no text/],
    ];
    for (const [bytes, message] of cases)
      await refuses(() => decodeSafetensors(bytes), 'E_INVALID_DATA', message);
  });

  it('never does worse than a named error on damaged files', async () => {
    const sound = await encodeSafetensors(weights, { format: 'pt' });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        fc.option(fc.nat(sound.length)),
        (edits, cut) => {
          const bytes = sound.slice(0, cut ?? sound.length);
          for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
          try {
            for (const [, tensor] of decodeSafetensors(bytes).tensors) {
              const count = tensor.dims.reduce((p, d) => p * d, 1);
              expect(tensor.data.read(0, tensor.data.byteLength).length).toBe(byteSize(tensor.dtype, count));
            }
          } catch (error) {
            expect(error).toBeInstanceOf(PeftCompileError);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  it('round-trips random tensors of every element type', async () => {
    const dtypes: DType[] = [
      'float32',
      'float64',
      'float16',
      'bfloat16',
      'int8',
      'uint8',
      'int16',
      'uint64',
      'float8e5m2',
      'complex64',
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(
          fc.string(),
          fc.tuple(fc.constantFrom(...dtypes), fc.array(fc.nat(3), { maxLength: 3 })),
          { maxKeys: 6 },
        ),
        fc.nat(255),
        async (spec, fill) => {
          const tensors = new Map(
            Object.entries(spec).map(([name, [dtype, dims]]) => {
              const count = dims.reduce((p, d) => p * d, 1);
              return [
                name,
                { dtype, dims, data: new Uint8Array(byteSize(dtype, count)).fill(fill) },
              ] as const;
            }),
          );
          const read = decodeSafetensors(await encodeSafetensors(tensors)).tensors;
          expect(read.size).toBe(tensors.size);
          for (const [name, { dtype, dims, data }] of tensors) {
            const found = read.get(name)!;
            expect([found.dtype, found.dims]).toEqual([dtype, dims]);
            expect(Buffer.from(found.data.read(0, data.length))).toEqual(Buffer.from(data));
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it('reads long texts in metadata, and refuses an index that names an index', async () => {
    // Longer than what a backtracking search could hold; quotes and backslashes are the hard part.
    for (const text of ['x'.repeat(2e7), '"\\'.repeat(3e6)]) {
      const { metadata } = decodeSafetensors(file({ __metadata__: { text } }));
      expect(metadata.get('text') === text).toBe(true);
    }
    for (const twice of ['{"a\\\\":1,"b":"a","a\\\\" : 2}', '{"b":{"k":1,"\\u006b":2}}'])
      await refuses(() => decodeSafetensors(file(twice)), 'E_INVALID_DATA', /two entries/);
    const index = join(folder, 'loop.safetensors.index.json');
    writeFileSync(index, JSON.stringify({ weight_map: { a: 'loop.safetensors.index.json' } }));
    await refuses(() => readSafetensors(index), 'E_INVALID_DATA');
  });
});
