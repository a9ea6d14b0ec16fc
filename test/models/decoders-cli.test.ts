/** Decoders on the command line: which inputs data need not have, and how others are fixed. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cli, cliJson } from '../cli/support.js';
import { fixturePath } from '../helpers/fixtures.js';

let folder: string;
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'decoders-cli-'));
  writeFileSync(
    at('data.jsonl'),
    [3, 4, 5, 6]
      .map((first) => {
        const ids = [first, first + 2, first + 4, first + 6];
        return `${JSON.stringify({ input_ids: ids, labels: ids })}\n`;
      })
      .join(''),
  );
  const model = fixturePath('decoders', 'gpt2.merged.onnx');
  expect((await cli('insert', model, '--set', 'rank=2', '-o', at('adapted.onnx'))).status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('a merged decoder is trained and folded with tokens alone', async () => {
  const flags = ['--loss', 'causal-lm', '--data', at('data.jsonl'), '--steps', '2', '--batch-size', '2'];
  const { status, json } = await cliJson('train', at('adapted.onnx'), ...flags, '-o', at('run'));
  expect(status).toBe(0);
  expect(json.steps).toBe(2);
  const folded = await cliJson(
    'fold',
    fixturePath('decoders', 'gpt2.merged.onnx'),
    '--adapter',
    at('run/adapter.safetensors'),
    '--verify',
    '-o',
    at('folded.onnx'),
  );
  expect(folded.status).toBe(0);
  expect(folded.json.verification.pass).toBe(true);
});

test('--set chooses the branch, feeds a past, and refuses what is no setting', async () => {
  const emit = (name: string, ...set: string[]) =>
    cliJson(
      'emit',
      at('adapted.onnx'),
      '--loss',
      'causal-lm',
      ...set.flatMap((one) => ['--set', one]),
      '-o',
      at(name),
    );
  const names = ({ json }: Awaited<ReturnType<typeof emit>>) =>
    json.manifest.batch.map((input: { name: string }) => input.name);
  const plain = ['input_ids', 'attention_mask', 'position_ids', 'labels'];
  expect(names(await emit('default'))).toEqual(plain);
  expect(names(await emit('with-past', 'use_cache_branch=true'))).toEqual(plain);
  expect(names(await emit('fed', 'use_cache_branch=true', 'past_key_values.*=feed'))).toEqual([
    'input_ids',
    'attention_mask',
    'position_ids',
    'past_key_values.0.key',
    'past_key_values.0.value',
    'labels',
  ]);
  const wrong = await cli(
    'emit',
    at('adapted.onnx'),
    '--loss',
    'causal-lm',
    '--set',
    'use_cache_branch=no',
    '-o',
    at('x'),
  );
  expect(wrong.status).toBe(2);
  expect(wrong.stderr).toContain('true, false, empty or feed');
  const unknown = await cli(
    'emit',
    at('adapted.onnx'),
    '--loss',
    'causal-lm',
    '--set',
    'use_cache=true',
    '-o',
    at('x'),
  );
  expect(unknown.status).toBe(4);
  expect(unknown.stderr).toContain('use_cache_branch');
});
