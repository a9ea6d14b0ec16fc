/** `emit --plan`: memory before anything runs. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { modelFixture } from '../helpers/fixtures.js';
import { cli, cliJson } from './support.js';

let folder: string;
let adapted: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'peft-compile-plan-'));
  adapted = join(folder, 'adapted.onnx');
  await cli('insert', modelFixture('bert.ts.dynamic').path, '-t', 'query', 'value', '-o', adapted);
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Plans {
  readonly plans: readonly {
    readonly peak: number;
    readonly graphs: readonly {
      readonly name: string;
      readonly activations: number;
      readonly weights: number;
    }[];
  }[];
}

const plan = async (...options: string[]): Promise<Plans> =>
  (await cliJson('emit', adapted, '--loss', 'classification', ...options)).json as unknown as Plans;

describe('emit --plan', () => {
  it('grows with the batch, shrinks with recompute and micro-batches, and writes nothing', async () => {
    const { plans } = await plan('--plan', 'batch=4,sequence=16', '--plan', 'batch=8,sequence=16');
    expect(plans).toHaveLength(2);
    const [small, large] = plans.map(({ graphs }) => graphs[0]!.activations);
    expect(large! / small!).toBeGreaterThan(1.8);
    expect(large! / small!).toBeLessThan(2.1);
    const again = await plan('--plan', 'batch=8,sequence=16', '--recompute');
    expect(again.plans[0]!.graphs[0]!.activations).toBeLessThan(large!);
    const micro = await plan('--plan', 'batch=4,sequence=16', '--accumulation', '2');
    expect(micro.plans[0]!.graphs.map(({ name }) => name)).toEqual(['grad', 'update']);
    expect(micro.plans[0]!.peak).toBeLessThan(plans[1]!.peak);
    expect(readdirSync(folder)).toEqual(['adapted.onnx']);
  });

  it('explains its columns', async () => {
    const { stdout } = await cli(
      'emit',
      adapted,
      '--loss',
      'classification',
      '--plan',
      'batch=8,sequence=16',
    );
    expect(stdout).toMatch(/^batch 8, sequence 16: about \d+(\.\d)? MB at the peak\n/);
    for (const word of ['weights', 'packed', 'carried', 'activations', 'gaps', 'runtime'])
      expect(stdout).toContain(word);
  });

  it.each([
    [['--plan', 'batch=8'], 'No size for sequence'],
    [['--plan', 'batch=8,sequence=4,width=3'], 'No input has a dimension width'],
    [[], '--out is missing'],
    [['--device', 'webgpu', '--sizes', 'batch=8', '-o', 'x'], 'No size for sequence'],
  ])('%j is told %s', async (options, message) => {
    const { status, stderr } = await cli('emit', adapted, '--loss', 'classification', ...options);
    expect(status).toBe(2);
    expect(stderr).toContain(message);
  });
});
