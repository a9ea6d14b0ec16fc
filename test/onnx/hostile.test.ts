/** Whatever the bytes, decoding ends with a model or with an error that says what is wrong and where. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PeftCompileError } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import { decodeModel, encodeModel, readModel } from '../../src/onnx/index.js';
import { info, int, len, model, modelFiles, node, scratch, v } from './support.js';

const small = modelFiles()
  .filter(({ path }) => statSync(path).size < 150_000)
  .slice(0, 8);

/** The model, or the error if it is one of ours; anything else fails the test. */
function attempt(read: () => Model): Model | PeftCompileError {
  try {
    const decoded = read();
    encodeModel(decoded);
    return decoded;
  } catch (error) {
    if (error instanceof PeftCompileError) return error;
    throw error;
  }
}

describe('mutated files', () => {
  for (const { name, path } of small) {
    const bytes = readFileSync(path);
    it(`are read or refused: ${name}`, () => {
      const edit = fc.record({
        at: fc.nat(bytes.length - 1),
        bytes: fc.uint8Array({ minLength: 1, maxLength: 6 }),
        remove: fc.nat(8),
      });
      fc.assert(
        fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
          let mutated = Buffer.from(bytes);
          for (const { at, bytes: insert, remove } of edits)
            mutated = Buffer.concat([mutated.subarray(0, at), insert, mutated.subarray(at + remove)]);
          attempt(() => decodeModel(mutated));
        }),
        { numRuns: 60, seed: 7 },
      );
    });

    it(`are read or refused when bits flip: ${name}`, () => {
      fc.assert(
        fc.property(fc.array(fc.nat(bytes.length * 8 - 1), { minLength: 1, maxLength: 5 }), (bits) => {
          const mutated = Buffer.from(bytes);
          for (const bit of bits) mutated[bit >> 3]! ^= 1 << (bit & 7);
          attempt(() => decodeModel(mutated));
        }),
        { numRuns: 60, seed: 8 },
      );
    });

    it(`are refused when truncated: ${name}`, () => {
      const folder = scratch();
      fc.assert(
        fc.property(fc.nat(bytes.length - 1), (length) => {
          const file = join(folder, 'cut.onnx');
          writeFileSync(file, bytes.subarray(0, length));
          const result = attempt(() => readModel(file));
          if (result instanceof PeftCompileError) expect(result.message).toContain('cut.onnx');
        }),
        { numRuns: 30, seed: 9 },
      );
    });
  }

  it('are read or refused when they are only noise', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (noise) => void attempt(() => decodeModel(noise))),
      {
        numRuns: 500,
        seed: 10,
      },
    );
  });
});

describe('errors name the place', () => {
  const refuse = (bytes: Uint8Array, code: string, ...parts: string[]): void => {
    const error = attempt(() => decodeModel(bytes, { path: 'dir/bad.onnx' }));
    expect(error).toBeInstanceOf(PeftCompileError);
    expect((error as PeftCompileError).code).toBe(code);
    for (const part of parts) expect((error as PeftCompileError).message).toContain(part);
  };
  const y = len(12, info('y', 1));
  const relu = len(1, node('Relu', ['x'], ['y'], [len(3, 'first')]));
  const x = len(11, info('x', 1));

  it('of an empty file, a text file, a file without a graph', () => {
    refuse(new Uint8Array(0), 'E_CORRUPT_MODEL', 'bad.onnx', 'empty');
    refuse(Buffer.from('version https://git-lfs.github.com/spec/v1\n'), 'E_CORRUPT_MODEL', 'bad.onnx');
    refuse(int(1, 8), 'E_CORRUPT_MODEL', 'no graph');
  });

  it('of a length that reaches past the end', () => {
    refuse(Buffer.concat([v(7 * 8 + 2), v(1n << 40n)]), 'E_CORRUPT_MODEL', 'byte 0');
    refuse(Buffer.concat([v(7 * 8 + 2), v(2n ** 64n - 1n)]), 'E_CORRUPT_MODEL', 'byte 1');
    const lying = Buffer.concat([v(3 * 8 + 2), v(1000)]);
    refuse(model([x, len(1, [len(1, 'x'), len(2, 'y'), lying]), y]), 'E_CORRUPT_MODEL', 'byte', 'node 0');
  });

  it('of a number that does not end, and of endless nesting', () => {
    refuse(Buffer.alloc(40, 0xff), 'E_CORRUPT_MODEL', 'byte 0');
    let graph: Buffer = Buffer.alloc(0);
    for (let i = 0; i < 3000; i++)
      graph = len(1, [len(4, 'If'), len(5, [len(1, 'b'), int(20, 5), len(6, graph)])]);
    refuse(model([graph]), 'E_CORRUPT_MODEL', 'nested deeper');
    let type: Buffer = Buffer.alloc(0);
    for (let i = 0; i < 3000; i++) type = len(4, [len(1, type)]);
    refuse(model([len(11, [len(1, 'x'), len(2, type)])]), 'E_CORRUPT_MODEL', 'nested deeper');
    refuse(Buffer.alloc(5000, 3 + 8 * 9), 'E_CORRUPT_MODEL', 'nested deeper');
  });

  it('of tensors whose data does not fit', () => {
    const tensor = (...fields: Uint8Array[]) => model([x, relu, y, len(5, [len(8, 'weight'), ...fields])]);
    refuse(
      tensor(int(2, 1), int(1, 3), len(9, Buffer.alloc(8))),
      'E_CORRUPT_MODEL',
      "tensor 'weight'",
      '8 bytes',
      '12',
    );
    refuse(
      tensor(int(2, 1), int(1, 2n ** 62n), int(1, 2n ** 62n)),
      'E_CORRUPT_MODEL',
      'impossible dimension',
    );
    refuse(tensor(int(2, 1), int(1, -1)), 'E_CORRUPT_MODEL', 'impossible dimension');
    refuse(tensor(int(2, 1), int(1, 1 << 30)), 'E_CORRUPT_MODEL', "tensor 'weight'");
    refuse(tensor(int(2, 8), int(1, 1 << 30)), 'E_CORRUPT_MODEL', '0 strings');
    refuse(tensor(int(2, 1), int(1, 1), int(9, 4)), 'E_CORRUPT_MODEL', 'wire type');
  });

  it('of names that are defined twice or never', () => {
    const w = len(5, [len(8, 'w'), int(2, 1), int(1, 1), len(9, Buffer.alloc(4))]);
    refuse(model([x, relu, y, w, w]), 'E_INVALID_GRAPH', "'w'", 'bad.onnx');
    refuse(model([x, relu, relu, y]), 'E_INVALID_GRAPH', "'y'", 'node 1');
    refuse(model([relu, y]), 'E_INVALID_GRAPH', "'x'", "Relu 'first'", 'bad.onnx');
    refuse(model([x, relu, len(12, info('z', 1))]), 'E_INVALID_GRAPH', "'z'");
  });

  it('of inputs without a name and nodes that wait for each other', () => {
    refuse(model([len(11, []), x, relu, y]), 'E_INVALID_GRAPH', 'no name', 'bad.onnx');
    const cycle = [len(1, node('Add', ['x', 'b'], ['a'])), len(1, node('Neg', ['a'], ['b']))];
    refuse(model([x, ...cycle, relu, y]), 'E_INVALID_GRAPH', 'cycle', "Add 'a'", 'bad.onnx');
  });

  it('but not of nodes that are merely out of order', () => {
    const bytes = model([x, len(1, node('Neg', ['b'], ['y'])), len(1, node('Abs', ['x'], ['b'])), y]);
    expect(Buffer.from(encodeModel(decodeModel(bytes))).equals(bytes)).toBe(true);
  });

  it('of attributes without a value', () => {
    const bad = (...fields: Uint8Array[]) =>
      model([x, len(1, node('Relu', ['x'], ['y'], [len(5, [len(1, 'k'), ...fields])])), y]);
    refuse(bad(int(20, 4)), 'E_CORRUPT_MODEL', 'node 0', 'Relu');
    refuse(bad(), 'E_CORRUPT_MODEL', "'k'");
    refuse(bad(int(20, 77)), 'E_CORRUPT_MODEL', '77');
  });

  it('of a missing file and a folder', () => {
    for (const path of [join(scratch(), 'none.onnx'), scratch()])
      expect(() => readModel(path)).toThrowError(expect.objectContaining({ code: 'E_IO' }));
  });
});
