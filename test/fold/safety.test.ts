/** What a fold must not do: touch its base, take an adapter of another model, take a damaged adapter. */
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { digestWeights } from '../../runtime/digest.js';
import { type FoldOptions, fold } from '../../runtime/fold/fold.js';
import { attr } from '../../src/attribute.js';
import type { Model } from '../../src/model.js';
import { readModel, writeModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { repositoryRoot } from '../helpers/fixtures.js';
import { floats, Sketch } from '../sites/graphs.js';

const NAME = 'bert.dynamo.external.onnx';
let folder: string;
let base: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fold-safety-'));
  base = join(folder, NAME);
  for (const file of [NAME, `${NAME}.data`])
    copyFileSync(join(repositoryRoot, 'fixtures/models', file), join(folder, file));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function adapterOf(model: Model, targets: string[]): Promise<string> {
  const baseDigest = await digestWeights(model);
  const { record } = insert(model, { method: 'lora', targeting: { targets }, baseDigest });
  const path = join(folder, 'adapter.safetensors');
  await writeAdapter(path, record, randomParameters(record));
  return path;
}

describe('the base', () => {
  const bytes = () => [base, `${base}.data`].map((path) => readFileSync(path).toString('base64'));

  test.each([
    ['its own path', () => base],
    [
      'a symbolic link to it',
      () => {
        symlinkSync(base, join(folder, 'link.onnx'));
        return join(folder, 'link.onnx');
      },
    ],
    [
      'a hard link to it',
      () => {
        linkSync(base, join(folder, 'hard.onnx'));
        return join(folder, 'hard.onnx');
      },
    ],
    ['the file of its weights', () => `${base}.data`],
  ])('is not overwritten through %s, not even by force', async (_what, out) => {
    const adapter = await adapterOf(readModel(base), ['query']);
    const before = bytes();
    await expect(fold({ model: base, adapter, out: out(), force: true })).rejects.toMatchObject({
      code: 'E_USAGE',
    });
    expect(bytes()).toEqual(before);
  });

  // A digest that fails while nobody waits for it would end the process (here: fail the run of the tests).
  test('ends the fold, and nothing else, when it cannot be read', async () => {
    const adapter = await adapterOf(readModel(base), ['query']);
    const model = readModel(base);
    const broken = () => {
      throw new Error('the disk is broken');
    };
    for (const value of model.graph.initializers)
      if (value.name === 'bert.embeddings.word_embeddings.weight' && value.tensor !== undefined)
        value.tensor = { ...value.tensor, data: { byteLength: value.tensor.data.byteLength, read: broken } };
    await expect(fold({ model, adapter, out: join(folder, 'out.onnx') })).rejects.toThrow('disk is broken');
  });

  test('keeps its data file when a new one would get its name', async () => {
    const adapter = await adapterOf(readModel(base), ['query']);
    const before = bytes();
    // `<out>.data` is the base's data file.
    const moved = join(folder, 'moved.onnx');
    copyFileSync(base, moved);
    rmSync(base);
    await expect(
      fold({ model: moved, adapter, out: base, force: true, write: { externalData: 'file' } }),
    ).rejects.toMatchObject({ code: 'E_USAGE' });
    copyFileSync(moved, base);
    expect(bytes()).toEqual(before);
  });

  test('shares its folder with the merged model and stays as it is', async () => {
    const adapter = await adapterOf(readModel(base), ['query']);
    const before = bytes();
    for (const externalData of ['keep', 'inline', 'file'] as const) {
      const out = join(folder, `${externalData}.onnx`);
      const report = await fold({ model: base, adapter, out, verify: true, write: { externalData } });
      expect(report.verification?.pass).toBe(true);
      expect(bytes()).toEqual(before);
    }
  });
});

describe('a model whose weights are in a file beside it', () => {
  const written = async (out: string, write: NonNullable<FoldOptions['write']> = {}) => {
    const adapter = join(folder, 'adapter.safetensors');
    if (!existsSync(adapter)) await adapterOf(readModel(base), ['query']);
    const { files, verification } = await fold({ model: base, adapter, out, verify: true, write });
    expect(verification?.pass).toBe(true);
    return files.map(({ path, how }) => `${how} ${basename(path)}`);
  };

  test('is folded into a file of its own elsewhere, without the numbers that changed', async () => {
    const out = join(folder, 'elsewhere', 'merged.onnx');
    expect(await written(out)).toEqual(['written merged.onnx.data', 'written merged.onnx']);
    // Pages between weights apart.
    expect(statSync(`${out}.data`).size).toBeLessThan(1.1 * statSync(`${base}.data`).size);
    expect(await written(join(folder, 'elsewhere', 'kept.onnx'), { externalData: 'keep' })).toEqual([
      `copied ${NAME}.data`,
      'written kept.onnx',
    ]);
  });

  test('is linked elsewhere when that is asked for', async () => {
    expect(await written(join(folder, 'elsewhere', 'linked.onnx'), { weights: 'link' })).toEqual([
      `linked ${NAME}.data`,
      'written linked.onnx',
    ]);
  });

  test('is not folded to a place below a file', async () => {
    await expect(written(join(base, 'merged.onnx'))).rejects.toMatchObject({ code: 'E_IO' });
  });

  test('is read further where the merged model lies beside it', async () => {
    const kept = [`kept ${NAME}.data`, 'written beside.onnx'];
    expect(await written(join(folder, 'beside.onnx'))).toEqual(kept);
    expect(await written(join(folder, 'inside.onnx'), { externalData: 'inline' })).toEqual([
      'written inside.onnx',
    ]);
  });
});

describe('an adapter of other weights', () => {
  /** All weights are in Constant nodes, as Paddle's exporter writes them. */
  const constants = (seed: number): Model => {
    const s = new Sketch();
    const x = s.input('x', [2, 4]);
    const weight = s.node(
      'Constant',
      [],
      { value: attr.tensor(floats([4, 4], seed)) },
      { outputs: ['fc.weight'] },
    );
    const y = s.node('MatMul', [x, weight], {}, { outputs: ['y'], name: '/fc/MatMul' });
    return s.output(y, [2, 4]).model;
  };

  test('is refused where the weights are in Constant nodes', async () => {
    const adapter = await adapterOf(constants(1), ['fc']);
    await expect(fold({ model: constants(2), adapter })).rejects.toMatchObject({ code: 'E_INVALID_DATA' });
    await expect(fold({ model: constants(1), adapter })).resolves.toMatchObject({
      tensors: [{ dims: [4, 4] }],
    });
  });

  test('fits the same weights stored another way', async () => {
    const inline = join(folder, 'inline.onnx');
    await writeModel(readModel(base), inline, { externalData: 'inline' });
    expect(await digestWeights(readModel(inline))).toBe(await digestWeights(readModel(base)));
  });
});
