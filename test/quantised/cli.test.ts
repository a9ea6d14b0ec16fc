/** The command line over quantised bases: quantize, insert, fold by each choice. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readAdapterRecord } from '../../passes/adapter-record.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { readModel } from '../../src/onnx/index.js';
import { cli } from '../cli/support.js';
import { randomParameters } from '../helpers/adapters.js';
import { fixturePath } from '../helpers/fixtures.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'quantised-cli-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it('quantises, adapts and folds', async () => {
  const at = (name: string) => join(folder, name);
  const bert = fixturePath('models', 'bert.ts.dynamic.onnx');
  const quantised = await cli('quantize', bert, '-o', at('q.onnx'), '--block-size', '16', '--verify');
  expect(quantised.status).toBe(0);
  expect(quantised.stdout).toMatch(/4 bits in blocks of 16/);
  expect(quantised.stdout).toMatch(/runs on .*WebGPU/);
  expect(quantised.stdout).toMatch(/worst difference \d/);

  expect((await cli('insert', at('q.onnx'), '-t', 'query', 'value', '-o', at('adapted.onnx'))).status).toBe(
    0,
  );
  const adapted = readModel(at('adapted.onnx'));
  const record = readAdapterRecord(adapted);
  await writeAdapter(at('adapter.safetensors'), record, randomParameters(record, adapted, { std: 0.2 }));
  const fold = (choice: string) =>
    cli(
      'fold',
      at('q.onnx'),
      '-a',
      at('adapter.safetensors'),
      '--quantised',
      choice,
      '-o',
      at(`${choice}.onnx`),
      '--verify',
    );

  const kept = await fold('keep');
  expect(kept.stderr).toMatch(/4 modules stand beside quantised weights/);
  expect(kept.stdout).toMatch(/proved/);
  const floats = await fold('dequantise');
  expect(floats.stderr).toMatch(/changed .*MatMulNBits.* is MatMul with the float tensor/);
  const integers = await fold('requantise');
  expect(integers.stdout).toMatch(/same graph/);
  expect(integers.stderr).toMatch(/of an update is lost to rounding/);
  for (const { status } of [kept, floats, integers]) expect(status).toBe(0);
  expect((await cli('quantize', bert, '-o', at('q.onnx'))).status).toBe(6);
  expect((await cli('quantize', bert, '--dry-run', '--format', 'int4', '--block-size', '5')).status).toBe(2);
});
