/** `--precision` of `emit` and `train`, and providers that lack a dtype. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PROVIDERS } from '../../runtime/ep/index.js';
import { precisionFor } from '../../runtime/ep/precision.js';
import { readModel } from '../../src/onnx/index.js';
import { schemaHistory } from '../../src/ops/schema.js';
import { cli, cliJson } from '../cli/support.js';
import { modelFixture } from '../helpers/fixtures.js';
import { refuses } from '../runtime/refuses.js';

let folder: string;
let adapted: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'precision-cli-'));
  adapted = join(folder, 'adapted.onnx');
  await cli('insert', modelFixture('bert.ts.dynamic').path, '-t', 'query', 'value', '-o', adapted);
});
afterAll(() => rmSync(folder, { recursive: true }));

const LOSS = ['--loss', 'classification'];

describe('--precision', () => {
  it('emits bfloat16 with float32 where CUDA has no kernels, and plans less memory', async () => {
    const out = join(folder, 'step');
    const { json } = await cliJson('emit', adapted, ...LOSS, '--precision', 'bfloat16', '-o', out);
    expect((json as { manifest: unknown }).manifest).toMatchObject({
      precision: { params: 'float32', model: 'bfloat16' },
      lossScaling: null,
    });
    const dtypes = [...readModel(join(out, 'step.onnx')).graph.initializers].map(
      ({ tensor }) => tensor?.dtype,
    );
    expect(dtypes).toContain('bfloat16');
    const plan = async (...options: string[]) => {
      const given = [...LOSS, '--plan', 'batch=8,sequence=32', ...options];
      const { plans } = (await cliJson('emit', adapted, ...given)).json as unknown as {
        plans: { graphs: { weights: number; activations: number }[] }[];
      };
      return plans[0]!.graphs[0]!;
    };
    const [whole, half] = [await plan(), await plan('--precision', 'float16')];
    expect(half.weights).toBeLessThan(whole.weights);
    expect(half.activations).toBeLessThan(whole.activations);
  });

  it('trains in float16 with a dynamic loss scale', async () => {
    const data = join(folder, 'data.jsonl');
    const rows = Array.from({ length: 8 }, (_, i) =>
      JSON.stringify({
        input_ids: [3, 5 + i, 7, 2],
        attention_mask: [1, 1, 1, 1],
        token_type_ids: [0, 0, 0, 0],
        labels: i % 2,
      }),
    );
    writeFileSync(data, rows.join('\n'));
    const out = join(folder, 'run');
    const run = ['--data', data, '--epochs', '6', '--batch-size', '4', '--lr', '0.01', '--quiet', '-o', out];
    await cli('train', adapted, ...LOSS, '--precision', 'float16', ...run);
    const losses = readFileSync(join(out, 'log.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .flatMap((line) => (JSON.parse(line) as { loss?: number }).loss ?? []);
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);
  });

  it('refuses what a provider or a target lacks, and says what there is', async () => {
    await refuses(
      () => precisionFor('bfloat16', 'webgpu'),
      'E_UNSUPPORTED',
      /WebGPU does not compute in bfloat16.*--precision float16.*--ep cuda/s,
    );
    await refuses(() => precisionFor('bfloat16', 'cpu'), 'E_UNSUPPORTED', /--ep cuda/);
    for (const { withoutHalf } of PROVIDERS.values())
      for (const gaps of Object.values(withoutHalf ?? {}))
        expect([...gaps].filter((op) => schemaHistory('', op).length === 0)).toEqual([]);
    const device = ['--device', 'webgpu', '--sizes', 'batch=2,sequence=4', '-o', join(folder, 'no')];
    const refused = await cli('emit', adapted, ...LOSS, '--precision', 'bfloat16', ...device);
    expect(refused.status).not.toBe(0);
    expect(refused.stderr).toMatch(/bfloat16/);
    const target = ['--target', 'ort-training', '-o', join(folder, 'no')];
    const other = await cli('emit', adapted, ...LOSS, '--precision', 'float16', ...target);
    expect(other.stderr).toMatch(/no mixed precision/);
  });
});
