/** The road from a folder to one file, and from an adapter of one's own to a folder, on the command line. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allParams } from '../../passes/adapter-record.js';
import { insert } from '../../passes/insert/insert.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { readPeft } from '../../runtime/peft/read.js';
import { readModel } from '../../src/onnx/index.js';
import { cli, cliJson } from '../cli/support.js';
import { modelFixture } from '../helpers/fixtures.js';
import { firstLogits, peftFolder, relativeError } from './folders.js';

const fixture = modelFixture('llama.ts.dynamic');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-cli-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const path = (name: string) => join(folder, name);

describe('fold', () => {
  it('takes a folder, and verifies', async () => {
    const out = path('merged.onnx');
    const { status, json } = await cliJson(
      'fold',
      fixture.path,
      '--adapter',
      peftFolder('llama-dora'),
      '--verify',
      '-o',
      out,
    );
    expect(status).toBe(0);
    expect(json).toMatchObject({ proof: { holds: true }, verification: { pass: true } });
  });

  it('takes several with weights', async () => {
    const args = ['--adapter', peftFolder('llama-lora'), '--adapter', peftFolder('llama-second')];
    const run = async (name: string, ...weights: string[]) => {
      const { status } = await cli(
        'fold',
        fixture.path,
        ...args,
        '--weights',
        ...weights,
        '-o',
        path(name),
        '--quiet',
      );
      expect(status).toBe(0);
      return firstLogits(readModel(path(name)), fixture);
    };
    const alone = path('alone.onnx');
    expect(
      (await cli('fold', fixture.path, '--adapter', peftFolder('llama-lora'), '-o', alone, '--quiet')).status,
    ).toBe(0);
    const first = await firstLogits(readModel(alone), fixture);
    expect(relativeError(await run('only-first.onnx', '1', '0'), first)).toBeLessThan(1e-6);
    expect(relativeError(await run('both.onnx', '1', '0.5'), first)).toBeGreaterThan(1e-2);
  });

  it('takes a map, and says what is wrong with one', async () => {
    const map = path('map.json');
    writeFileSync(map, JSON.stringify({ 'model.layers': 7 }));
    const { status, stderr } = await cli(
      'fold',
      fixture.path,
      '--adapter',
      peftFolder('llama-lora'),
      '--map',
      map,
      '--dry-run',
    );
    expect(status).toBe(3);
    expect(stderr).toContain('{"module in PEFT"');
  });
});

describe('export', () => {
  it('writes an adapter of our own as a folder that reads back the same', async () => {
    const model = readModel(fixture.path);
    const { record } = insert(model, {
      method: 'lora',
      config: { rank: 3, alpha: 7, rslora: true },
      targeting: { targets: ['q_proj', 'up_proj'], rankPattern: { up_proj: 2 } },
      seed: 5,
    });
    const values = new Map([...model.graph.initializers].map((value) => [value.name, value.tensor!]));
    const tensors = new Map(allParams(record).map(({ key, name }) => [key, values.get(name)!]));
    const adapter = path('adapter.safetensors');
    await writeAdapter(adapter, record, tensors);

    const out = path('folder');
    const { status, json } = await cliJson(
      'export',
      adapter,
      '--task',
      'CAUSAL_LM',
      '--base',
      'some/llama',
      '-o',
      out,
    );
    expect(status).toBe(0);
    expect(json).toMatchObject({ format: 'peft', type: 'LORA', tensors: 8 });
    expect(JSON.parse(readFileSync(join(out, 'adapter_config.json'), 'utf8'))).toMatchObject({
      peft_type: 'LORA',
      task_type: 'CAUSAL_LM',
      base_model_name_or_path: 'some/llama',
      lora_alpha: 7,
      use_rslora: true,
      bias: 'none',
    });
    const back = await readPeft(out, { base: readModel(fixture.path) });
    expect(back.record.sites).toEqual(record.sites);
    for (const [key, { data }] of tensors) {
      const same = back.tensors.get(key)!.data;
      expect(Buffer.compare(same.read(0, same.byteLength), data.read(0, data.byteLength)), key).toBe(0);
    }
    expect((await cli('export', adapter, '-o', out)).status).toBe(6);
  });

  it('refuses what PEFT does not have', async () => {
    const model = readModel(fixture.path);
    const { record } = insert(model, { method: 'houlsby' });
    const values = new Map([...model.graph.initializers].map((value) => [value.name, value.tensor!]));
    const adapter = path('houlsby.safetensors');
    await writeAdapter(
      adapter,
      record,
      new Map(allParams(record).map(({ key, name }) => [key, values.get(name)!])),
    );
    const { status, stderr } = await cli('export', adapter, '-o', path('houlsby'));
    expect(status).toBe(7);
    expect(stderr).toContain('PEFT has no houlsby');
  });
});
