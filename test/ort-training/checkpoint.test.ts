/** Checkpoint files: what we write is what other readers see, and what others write is read or refused by name. */
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { Builder, ByteBuffer } from 'flatbuffers';
import { afterAll, describe, expect, it } from 'vitest';
import type { OrtCheckpoint } from '../../runtime/ort-training/checkpoint.js';
import { readCheckpoint } from '../../runtime/ort-training/read-checkpoint.js';
import { checkpointBytes, nominalOf, writeCheckpoint } from '../../runtime/ort-training/write-checkpoint.js';
import { PeftCompileError } from '../../src/errors.js';
import { randomStream } from '../../src/initializer.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { byteSize, type DType } from '../../src/types.js';

const folder = mkdtempSync(join(tmpdir(), 'peft-compile-odtc-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function tensor(dtype: DType, ...dims: number[]): Tensor {
  const random = randomStream(dims.length, `${dtype}${dims.join()}`);
  const count = dims.reduce((product, dim) => product * dim, 1);
  return tensorOfBytes(
    dtype,
    dims,
    Uint8Array.from({ length: byteSize(dtype, count) }, () => 256 * random()),
  );
}

const bytesOf = ({ data }: Tensor): Buffer => Buffer.from(data.read(0, data.byteLength));

function sample(): OrtCheckpoint {
  const A = tensor('float32', 7, 3);
  const B = tensor('float32', 3, 5);
  return {
    trainable: new Map([
      ['läyer.A', A],
      ['layer.B', B],
    ]),
    frozen: new Map([
      ['ids', tensor('int64', 9)],
      ['half', tensor('float16', 33)],
      ['scalar', tensor('float64')],
      ['none', tensor('float32', 0, 4)],
    ]),
    nominal: false,
    optimizer: {
      step: 12,
      initialLearningRate: 0.5,
      moments: new Map([
        ['läyer.A', [tensor('float32', 7, 3), tensor('float32', 7, 3)]],
        ['layer.B', [tensor('float32', 3, 5), tensor('float32', 3, 5)]],
      ]),
    },
    properties: new Map<string, bigint | number | string>([
      ['count', -5n],
      ['rate', 0.25],
      ['record', '{"ä": 1}'],
    ]),
  };
}

/** Everything a checkpoint says, with payloads as text. */
function told(checkpoint: OrtCheckpoint): unknown {
  const tensors = (named: Iterable<[string, Tensor]>) =>
    [...named].map(([name, value]) => [name, value.dtype, value.dims, bytesOf(value).toString('hex')]);
  const { trainable, frozen, optimizer, nominal, properties } = checkpoint;
  return {
    trainable: tensors(trainable),
    frozen: tensors(frozen),
    nominal,
    step: optimizer?.step,
    rate: optimizer?.initialLearningRate,
    moments: [...(optimizer?.moments ?? [])].map(([param, moments]) => [
      param,
      moments.map((m) => bytesOf(m).toString('hex')),
    ]),
    properties: [...properties],
  };
}

/** What went wrong, which has to be an error of ours. */
function refusal(act: () => unknown): PeftCompileError {
  try {
    act();
  } catch (error) {
    if (error instanceof PeftCompileError) return error;
    throw error;
  }
  throw new Error('It was read');
}

describe('checkpoints', () => {
  it('come back as they were written, from bytes and from files', async () => {
    const bytes = await checkpointBytes(sample());
    expect(told(readCheckpoint(bytes))).toEqual(told(sample()));
    const path = join(folder, 'whole');
    expect(await writeCheckpoint(path, sample())).toEqual([path]);
    expect(Buffer.compare(readFileSync(path), bytes)).toBe(0);
    expect(told(readCheckpoint(path))).toEqual(told(sample()));
    expect(refusal(() => readCheckpoint(join(folder, 'nowhere'))).code).toBe('E_IO');
  });

  it('keep large tensors in a data file', async () => {
    const path = join(folder, 'split');
    expect(await writeCheckpoint(path, sample(), { externalData: 'always' })).toEqual([`${path}.data`, path]);
    expect(told(readCheckpoint(path))).toEqual(told(sample()));
    const data = readFileSync(`${path}.data`);
    expect(data.includes(bytesOf(sample().trainable.get('läyer.A')!))).toBe(true);
    expect(refusal(() => readCheckpoint(readFileSync(path))).code).toBe('E_EXTERNAL_DATA');
    truncateSync(`${path}.data`, data.length - 1);
    const { code, where } = refusal(() => readCheckpoint(path));
    expect([code, where]).toEqual(['E_EXTERNAL_DATA', `${path}.data`]);
    rmSync(`${path}.data`);
    expect(refusal(() => readCheckpoint(path)).code).toBe('E_EXTERNAL_DATA');
  });

  it('leave no data file of the checkpoint that they replace', async () => {
    const path = join(folder, 'rewritten');
    await writeCheckpoint(path, sample(), { externalData: 'always' });
    expect(await writeCheckpoint(path, sample(), { force: true })).toEqual([path]);
    expect(existsSync(`${path}.data`)).toBe(false);
    expect(told(readCheckpoint(path))).toEqual(told(sample()));
    // A file of that name beside something else is not the checkpoint's.
    const other = join(folder, 'other');
    writeFileSync(other, 'x');
    writeFileSync(`${other}.data`, 'y');
    await writeCheckpoint(other, sample(), { force: true });
    expect(existsSync(`${other}.data`)).toBe(true);
  });

  it('are read alike by the official library', async () => {
    const bytes = await checkpointBytes(sample());
    const buffer = new ByteBuffer(bytes);
    expect(buffer.getBufferIdentifier()).toBe('ODTC');
    const root = buffer.readInt32(0);
    const field = (at: number, id: number) => at + buffer.__offset(at, 4 + 2 * id);
    expect(buffer.readInt32(field(root, 0))).toBe(2);
    const state = buffer.__indirect(field(root, 1));
    const list = field(state, 1);
    const found = Array.from({ length: buffer.__vector_len(list) }, (_, i) => {
      const at = buffer.__indirect(buffer.__vector(list) + 4 * i);
      const dims = field(at, 2);
      const raw = field(at, 4);
      const start = buffer.__vector(raw);
      return [
        buffer.__string(field(at, 0)),
        buffer.readInt32(field(at, 3)),
        Array.from({ length: buffer.__vector_len(dims) }, (_, d) =>
          Number(buffer.readInt64(buffer.__vector(dims) + 8 * d)),
        ),
        Buffer.from(bytes.subarray(start, start + buffer.__vector_len(raw))).toString('hex'),
      ];
    });
    const codes: Record<string, number> = { int64: 7, float16: 10, float64: 11, float32: 1 };
    expect(found).toEqual(
      [...sample().frozen].map(([name, value]) => [
        name,
        codes[value.dtype],
        value.dims,
        bytesOf(value).toString('hex'),
      ]),
    );
  });

  it('have nominal twins without dimensions and values', async () => {
    const nominal = readCheckpoint(await checkpointBytes(nominalOf(sample())));
    expect(nominal.nominal).toBe(true);
    expect([...nominal.trainable].map(([name, { dtype, dims }]) => [name, dtype, dims])).toEqual([
      ['läyer.A', 'float32', []],
      ['layer.B', 'float32', []],
    ]);
  });

  it('of other kinds and versions are refused by name', () => {
    expect(refusal(() => readCheckpoint(new Uint8Array(3)))).toMatchObject({
      code: 'E_INVALID_DATA',
      message: expect.stringContaining('no checkpoint') as unknown,
    });
    const builder = new Builder(64);
    builder.startObject(4);
    builder.addFieldInt32(0, 1, 0);
    builder.finish(builder.endObject(), 'ODTC');
    expect(refusal(() => readCheckpoint(builder.asUint8Array()))).toMatchObject({
      code: 'E_INVALID_DATA',
      message: expect.stringContaining('version 1') as unknown,
    });
  });

  it('that lie or contradict themselves are refused', async () => {
    const { optimizer, trainable, ...rest } = sample();
    const state = optimizer!;
    const bad: [Partial<OrtCheckpoint>, RegExp][] = [
      [
        { trainable: new Map([...trainable, ['short', { ...tensor('float32', 4), dims: [5] }]]) },
        /16 bytes instead of 20/,
      ],
      [
        { trainable: new Map([...trainable, ['back', { ...tensor('float32', 4), dims: [-2, -2] }]]) },
        /dimensions \[-2, -2\]/,
      ],
      [{ trainable: new Map([...trainable, ['ids', tensor('int64', 9)]]) }, /trained and frozen at once/],
      [
        { optimizer: { ...state, moments: new Map([['stranger', [tensor('float32', 2)]]]) } },
        /no trained parameter/,
      ],
      [
        { optimizer: { ...state, moments: new Map([['layer.B', [tensor('float32', 5, 3)]]]) } },
        /does not fit/,
      ],
      [{ optimizer: { ...state, step: -1 } }, /step -1/],
    ];
    for (const [change, message] of bad) {
      const bytes = await checkpointBytes({ trainable, optimizer: state, ...rest, ...change });
      const error = refusal(() => readCheckpoint(bytes));
      expect(error.code).toBe('E_INVALID_DATA');
      expect(error.message).toMatch(message);
      expect(error.remedy).toBeDefined();
    }
  });

  it('that are damaged anywhere are read or refused, and never worse', async () => {
    const bytes = await checkpointBytes(sample());
    // The head holds the structure; what lies behind is numbers.
    const at = fc.integer({ min: 0, max: Math.min(bytes.length, 1800) - 1 });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(at, fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 6 }),
        (hits) => {
          const damaged = Uint8Array.from(bytes);
          for (const [position, value] of hits) damaged[position] = value;
          try {
            told(readCheckpoint(damaged));
          } catch (error) {
            if (!(error instanceof PeftCompileError)) throw error;
          }
        },
      ),
      { numRuns: 2000 },
    );
    for (let length = 0; length < bytes.length; length += 37) {
      const path = join(folder, 'cut');
      writeFileSync(path, bytes.subarray(0, length));
      expect(refusal(() => readCheckpoint(path)).code).toBe('E_INVALID_DATA');
    }
  });
});
