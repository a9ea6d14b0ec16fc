/** Options that would be ignored beside the others are refused, with the option that they go with. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixturePath, modelFixture } from '../helpers/fixtures.js';
import { cli, cliJson } from './support.js';

const llama = modelFixture('llama.dynamo.dynamic').path;
const peft = (name: string) => fixturePath('peft', name);

let folder: string;
const at = (...parts: string[]) => join(folder, ...parts);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-compile-misplaced-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const one = ['fold', llama, '-a', peft('llama-lora')];
const two = [...one, '-a', peft('llama-second')];
const exported = ['export', peft('llama-lora'), '--model', llama];

describe('a flag that nothing reads is an error', () => {
  it.each([
    [[...one, '--combine', 'ties'], '--combine goes with several --adapter'],
    [[...one, '--density', '0.5'], '--density goes with several --adapter'],
    [[...two, '--density', '0.5'], "--density means nothing to the combination 'cat'"],
    [[...two, '--combine', 'linear', '--density', '0.5'], "means nothing to the combination 'linear'"],
    [[...two, '--combine', 'ties', '--combine-rank', '2'], "means nothing to the combination 'ties'"],
    [[...exported, '--names', 'olive'], '--names goes with --format onnx_adapter'],
    [[...exported, '-f', 'npz', '--scale', 'input'], '--scale goes with --format onnx_adapter'],
    [[...exported, '-f', 'onnx_adapter', '--task', 'CAUSAL_LM'], '--task goes with --format peft'],
  ])('%j', async (line, message) => {
    const { status, json } = await cliJson(...line, '-o', at('x'));
    expect(json.error).toMatchObject({ code: 'E_USAGE', message: expect.stringContaining(message) });
    expect(json.error.remedy).toBeTruthy();
    expect(status).toBe(2);
    expect(existsSync(at('x'))).toBe(false);
  });

  it('takes the settings that a combination reads', async () => {
    const { status } = await cli(
      ...two,
      '--combine',
      'ties_svd',
      '--density',
      '0.5',
      '--combine-rank',
      '2',
      '--dry-run',
    );
    expect(status).toBe(0);
  });
});

describe('what stands in the way is said with the way around it', () => {
  it.each([
    [
      ['fold', llama, '-a', join(peft('llama-lora'), 'adapter_config.json')],
      `Pass the folder: ${peft('llama-lora')}`,
    ],
    [['fold', llama, '-a', fixturePath('peft')], 'and 1'],
    [['fold', llama, '-a', peft('llama-lora'), '--map', 'missing.json'], 'Check the path'],
    [['export', peft('llama-lora')], '--model'],
    [['export', peft('llama-lora'), '--model', llama, '--task', 'CAUSALLM'], 'CAUSAL_LM'],
  ])('%j', async (line, remedy) => {
    const { status, stderr } = await cli(...line, '-o', at('x'));
    expect([2, 3]).toContain(status);
    expect(stderr).toContain(remedy);
    expect(stderr.length).toBeLessThan(1000);
  });

  it('export --scale graph says that the file lacks the scale', async () => {
    const line = [...exported, '-f', 'onnx_adapter', '--scale'];
    expect((await cli(...line, 'graph', '-o', at('graph.onnx_adapter'))).stderr).toContain(
      'alpha/r is not in',
    );
    expect((await cli(...line, 'factor', '-o', at('factor.onnx_adapter'))).stderr).toBe('');
  });
});

it('a run that failed before its first step does not stand in the way of the next', async () => {
  const base = modelFixture('bert.ts.dynamic').path;
  await cli('insert', base, '-t', 'query', '--rank', '2', '-o', at('adapted.onnx'));
  writeFileSync(at('data.jsonl'), `${JSON.stringify({ input_ids: [5, 9, 9, 5], labels: 1 })}\n`.repeat(8));
  const line = [
    'train',
    at('adapted.onnx'),
    '-d',
    at('data.jsonl'),
    '--loss',
    'classification',
    '--steps',
    '1',
  ];
  // Row 99999 of the embedding does not exist: the first step fails in the runtime.
  writeFileSync(at('bad.jsonl'), readFileSync(at('data.jsonl'), 'utf8').replaceAll('9,9', '99999,9'));
  const bad = line.map((word) => (word === at('data.jsonl') ? at('bad.jsonl') : word));
  expect((await cli(...bad, '-o', at('run'))).status).not.toBe(0);
  expect((await cli(...line, '-o', at('run'))).status).toBe(0);
});
