/** `emit`: which options go with which target, and what is on disk after a refusal. */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { emitCommand } from '../../src/cli/emit/verb.js';
import { modelFixture } from '../helpers/fixtures.js';
import { cli, cliJson } from './support.js';

let folder: string;
const at = (...parts: string[]) => join(folder, ...parts);
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'peft-compile-emit-'));
  const base = modelFixture('bert.dynamo.external').path;
  copyFileSync(base, at('base.onnx'));
  copyFileSync(`${base}.data`, at('bert.dynamo.external.onnx.data'));
  await cli('insert', at('base.onnx'), '-t', 'query', '--rank', '2', '-o', at('adapted.onnx'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('options of another target are refused, and the right one is named', () => {
  it.each([
    [['--rate', 'runtime', '--loss', 'classification'], '--rate goes with --target ort-training'],
    [['--target', 'adapted', '--lr', '0.1'], '--lr goes with --target step or ort-training'],
    [['--target', 'ort-training', '--plan'], '--plan goes with --target step'],
    [['-a', 'x.safetensors', '--loss', 'mse'], '--adapter goes with --target adapted'],
    [['--target', 'adapted', '--names', 'olive'], '--names goes with --target adapted --adapter-io inputs'],
    [['--target', 'adapted', '--any-base'], '--any-base goes with --adapter'],
    [['--target', 'adapted', '--adapter-io', 'inputs', '--optional'], '--optional goes with --adapter'],
    [['--loss', 'classification', '--sizes', 'batch=2'], '--sizes goes with --device'],
  ])('%j', async (options, message) => {
    const { status, json } = await cliJson('emit', at('adapted.onnx'), ...options, '-o', at('refused'));
    expect(status).toBe(2);
    expect(json.error).toMatchObject({ code: 'E_USAGE', message: expect.stringContaining(message) });
    expect(json.error.remedy).toBeTruthy();
    expect(existsSync(at('refused'))).toBe(false);
  });

  it('takes a default that is spelt out for what it is: given', async () => {
    const { status } = await cli('emit', at('adapted.onnx'), '--target', 'adapted', '--rate', 'graph');
    expect(status).toBe(2);
  });

  it('groups the options of --help by target', () => {
    const help = emitCommand().helpInformation();
    const order = [
      'step or ort-training:',
      'step:',
      'ort-training:',
      'adapted:',
      'adapted --adapter-io inputs:',
    ];
    const places = order.map((heading) => help.indexOf(`\nWith --target ${heading}`));
    expect(places.every((place) => place > 0)).toBe(true);
    expect([...places].sort((a, b) => a - b)).toEqual(places);
    expect(help.indexOf('--rate <')).toBeGreaterThan(places[2]!);
    expect(help.indexOf('--rate <')).toBeLessThan(places[3]!);
  });
});

it('links external data into the folder of training graphs, twice with --force', async () => {
  const line = [
    'emit',
    at('adapted.onnx'),
    '--loss',
    'classification',
    '--weights',
    'link',
    '-o',
    at('step'),
  ];
  const data = readdirSync(folder).filter((name) => name.endsWith('.data'));
  for (const more of [[], ['--force']]) {
    expect(await cli(...line, ...more)).toMatchObject({ status: 0 });
    for (const name of data) expect(statSync(at('step', name)).ino).toBe(statSync(at(name)).ino);
  }
  expect(data).toHaveLength(1);
  expect(await cli(...line)).toMatchObject({ status: 6 });
});

it('writes no graph where the file for no adapter is in the way', async () => {
  const step = await cli('emit', at('adapted.onnx'), '--loss', 'classification', '-o', at('artifacts'));
  expect(step.status).toBe(0);
  const adapter = at('artifacts', 'initial.safetensors');
  mkdirSync(at('served'));
  copyFileSync(adapter, at('served', 'none.onnx_adapter'));
  const target = ['--target', 'adapted', '--adapter-io', 'inputs', '-a', adapter];
  const out = ['--none', at('served', 'none.onnx_adapter'), '-o', at('served', 'serving.onnx')];
  expect(await cli('emit', at('base.onnx'), ...target, ...out)).toMatchObject({ status: 6 });
  expect(readdirSync(at('served'))).toEqual(['none.onnx_adapter']);
  const { json } = await cliJson('emit', at('base.onnx'), ...target, ...out, '--force');
  // A and B of the query of two layers.
  expect(json.inputs).toHaveLength(4);
  expect(json.inputs[0]).toMatchObject({ dtype: 'float32', shape: [32, expect.stringContaining('lora_r')] });
});
