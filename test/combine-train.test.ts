/** Adapters that train together, a row of the batch each, and what is made of them afterwards. */
import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readTrained, writeAdapter } from '../runtime/adapter-file.js';
import { readSafetensors } from '../runtime/safetensors.js';
import { decodeNumbers } from '../src/literals.js';
import { readModel } from '../src/onnx/index.js';
import type { Tensor } from '../src/tensor.js';
import { cli, cliJson, temporaryFolder } from './cli/support.js';
import { adapterOn, difference, lora, tokensFor } from './helpers/combining.js';
import { modelFixture } from './helpers/fixtures.js';
import { numbers, runModel } from './helpers/run.js';
import { int64 } from './targets/driver.js';

const folder = temporaryFolder();
afterAll(() => folder.remove());
const at = (name: string) => folder.path(name);
const bert = modelFixture('bert.dynamo.dynamic').path;

const named = (names: readonly string[]) =>
  names.flatMap((name) => ['--adapter', `${name}=${at(`${name}.safetensors`)}`]);

const kept = (tensor: Tensor | undefined) =>
  tensor === undefined ? [] : (decodeNumbers(tensor) as number[]);

describe('several adapters in one run', { timeout: 60_000 }, () => {
  beforeAll(async () => {
    const entries = { fr: [lora(3, ['query', 'word_embeddings'])], de: [lora(2, ['query', 'dense'])] };
    for (const [i, [name, entry]] of Object.entries(entries).entries()) {
      const { file } = await adapterOn(bert, i + 1, entry);
      await writeAdapter(at(`${name}.safetensors`), file.record, file.tensors);
    }
    const lines = Array.from({ length: 8 }, (_, i) =>
      JSON.stringify({ input_ids: [2, 5 + i, 9, 11 + (i % 3)], labels: i % 3, adapter: i % 3 }),
    );
    writeFileSync(at('rows.jsonl'), `${lines.join('\n')}\n`);
    await expectDone(
      'combine',
      ...[bert, '--by', 'row', '--trainable', ...named(['fr', 'de'])],
      ...['-o', at('together.onnx')],
    );
    await expectDone(
      'train',
      ...[at('together.onnx'), '--loss', 'classification', '--data', at('rows.jsonl'), '--lr', '0.01'],
      ...['--steps', '3', '--batch-size', '4', '-o', at('run')],
    );
    for (const name of ['fr', 'de'])
      await expectDone(
        'adapter',
        ...[at('together.onnx'), '--checkpoint', at('run/adapter.safetensors'), '--take', name],
        ...['-o', at(`${name}-trained.safetensors`)],
      );
  });

  it('are taken apart again, each trained', async () => {
    const together = readSafetensors(at('run/adapter.safetensors')).tensors;
    for (const name of ['fr', 'de']) {
      const before = await readTrained(at(`${name}.safetensors`));
      const after = await readTrained(at(`${name}-trained.safetensors`));
      const plain = ({ key, shape }: { key: string; shape: number[] }) => ({ key, shape });
      expect(after.record.sites.map(({ params }) => Object.values(params).map(plain))).toEqual(
        before.record.sites.map(({ params }) => Object.values(params).map(plain)),
      );
      expect(after.record.entries).toEqual(before.record.entries);
      for (const [key, tensor] of after.tensors) {
        expect(kept(tensor)).toEqual(kept(together.get(`${name}.${key}`)));
        expect(difference(kept(before.tensors.get(key)), kept(tensor))).toBeGreaterThan(1e-3);
      }
    }
  });

  it('compute in a serving graph what they computed while they trained', async () => {
    await expectDone(
      'combine',
      ...[bert, '--by', 'row', ...named(['fr-trained', 'de-trained'])],
      ...['-o', at('serving.onnx')],
    );
    const trained = readModel(at('together.onnx'));
    const { tensors, record } = await readTrained(at('run/adapter.safetensors'));
    const stored = new Map([...trained.graph.initializers].map((value) => [value.name, value]));
    for (const { params } of record.sites)
      for (const { key, name } of Object.values(params)) {
        const value = stored.get(name);
        if (value !== undefined) value.tensor = tensors.get(key);
      }
    const feeds = { ...tokensFor(readModel(bert), 3), adapter: int64([2, 0, 1]) };
    const wanted = numbers((await runModel(trained, feeds)).logits);
    const found = numbers((await runModel(readModel(at('serving.onnx')), feeds)).logits);
    expect(difference(wanted, found)).toBeLessThan(3e-6);
  });

  it.each([
    ['fold', [bert, '--adapter', at('run/adapter.safetensors'), '-o', at('x.onnx')]],
    ['emit', [at('together.onnx'), '--target', 'adapted', '-o', at('x.onnx')]],
    ['combine', [bert, ...named(['fr', 'run/adapter']), '-o', at('x.onnx')]],
  ])('are not one adapter: %s', async (verb, args) => {
    const { status, stderr } = await cli(verb, ...args);
    expect(stderr).toMatch(/fr, de.*--take fr/s);
    expect(status).toBe(7);
  });

  it('say which of them there are', async () => {
    const args = [at('together.onnx'), '--checkpoint', at('run/adapter.safetensors'), '-o', at('x')];
    const { status, stderr } = await cli('adapter', ...args, '--take', 'dee');
    expect(status).toBe(4);
    expect(stderr).toContain('de');
    const byRun = await cli('combine', bert, '--trainable', ...named(['fr', 'de']), '-o', at('x.onnx'));
    expect(byRun.status).toBe(2);
    expect(byRun.stderr).toContain('--by row');
  });
});

async function expectDone(...args: string[]): Promise<void> {
  const { status } = await cliJson(...args);
  expect(status, args.join(' ')).toBe(0);
}
