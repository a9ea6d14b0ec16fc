/** What a user hears whose target, rank or file cannot be meant. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { insert } from '../../passes/insert/insert.js';
import { readAdapter, writeAdapter } from '../../runtime/adapter-file.js';
import { readPeft } from '../../runtime/peft/read.js';
import { readModel } from '../../src/onnx/index.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { describeIssues } from '../../src/zod-issues.js';
import { modelFixture } from '../helpers/fixtures.js';
import { peftFolder } from '../peft/folders.js';

const llama = () => readModel(modelFixture('llama.dynamo.dynamic').path);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'refusals-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('a target', () => {
  it('that is a norm is no place for lora, and the message says what it is', () => {
    const attempt = () => insert(llama(), { method: 'lora', targeting: { targets: ['input_layernorm'] } });
    expect(attempt).toThrow(/'input_layernorm' matches norm modules alone.*It adapts .*linear/s);
  });

  it('of a misspelt name is what it was', () => {
    const attempt = () => insert(llama(), { method: 'lora', targeting: { targets: ['q_porj'] } });
    expect(attempt).toThrow(/'q_porj' matches no module.*q_proj/s);
  });
});

it('a change of biases is not read for a base without them', async () => {
  await expect(readPeft(peftFolder('bert-beft'), { base: llama() })).rejects.toMatchObject({
    code: 'E_NO_MATCH',
  });
});

describe('a file of pafi', () => {
  const write = async (name: string, places: readonly bigint[]) => {
    const param = {
      trainable: false,
      group: 'default',
      lrScale: 1,
      weightDecay: true,
      dtype: 'int64',
    } as const;
    const key = 'm.pafi_indices';
    const record = {
      version: 2 as const,
      entries: [{ method: 'pafi', config: {} }],
      seed: 0,
      sites: [
        {
          entry: 0,
          path: 'm',
          kind: 'linear',
          config: {},
          params: { indices: { ...param, key, name: key, shape: [places.length] } },
        },
      ],
    };
    const path = join(folder, `${name}.safetensors`);
    const bytes = new Uint8Array(BigInt64Array.from(places).buffer);
    await writeAdapter(path, record, new Map([[key, tensorOfBytes('int64', [places.length], bytes)]]));
    return path;
  };

  it.each([
    { name: 'twice', places: [4n, 9n, 4n], said: 'place 4 twice' },
    { name: 'negative', places: [4n, -1n], said: 'place -1' },
  ])('with places that are $name is refused', async ({ name, places, said }) => {
    await expect(readAdapter(await write(name, places))).rejects.toMatchObject({
      code: 'E_INVALID_DATA',
      message: expect.stringContaining(said) as unknown,
    });
  });

  it('with places in any order is read', async () => {
    const { tensors } = await readAdapter(await write('unsorted', [9n, 4n, 0n]));
    expect(tensors.size).toBe(1);
  });
});

it('a schema names three faults, what it wanted and what it got', () => {
  const schema = z.object(Object.fromEntries('abcde'.split('').map((key) => [key, z.number()])));
  const { error } = schema.safeParse({ a: 'x', b: true, c: null, d: [], e: {} });
  expect(describeIssues(error as NonNullable<typeof error>)).toBe(
    'a: expected number, received string; b: expected number, received boolean; c: expected number, received null; and 2 more',
  );
});
