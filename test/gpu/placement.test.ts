/**
 * Placement on WebGPU: sessions of the training graphs of every float32 fixture of three architectures, the CPU forbidden
 * to take a node. Nothing is computed here.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { symbolsOf } from '../../passes/memory/plan.js';
import { lowerStep } from '../../passes/targets/for-device.js';
import { emitStep } from '../../passes/targets/step.js';
import { webgpu } from '../../runtime/ep/webgpu.js';
import { loadSession } from '../../runtime/model-session.js';
import { SessionHost } from '../../runtime/session.js';
import { readModel } from '../../src/onnx/index.js';
import { repositoryRoot } from '../helpers/fixtures.js';
import { whyNoGpu } from './software-gpu.js';

const missing = whyNoGpu();
const folder = join(repositoryRoot, 'fixtures/models');
const LOSSES = { bert: 'classification', gpt2: 'causal-lm', llama: 'causal-lm' } as const;

const files = (Object.keys(LOSSES) as (keyof typeof LOSSES)[]).flatMap((architecture) =>
  readdirSync(folder)
    .filter(
      (file) => file.startsWith(`${architecture}.`) && file.endsWith('.onnx') && !/fp16|bf16/.test(file),
    )
    .sort()
    .map((file) => [file, LOSSES[architecture]] as const),
);

const host = new SessionHost();
afterAll(() => host.close());

describe.skipIf(missing !== undefined)('placement on WebGPU', () => {
  it('covers both exporters of every architecture', () => {
    for (const architecture of Object.keys(LOSSES))
      for (const exporter of ['ts', 'dynamo'])
        expect(files.map(([file]) => file)).toContain(`${architecture}.${exporter}.dynamic.onnx`);
  });

  it.each(files)('%s: no node on the CPU', async (file, loss) => {
    const model = readModel(join(folder, file));
    const config = { rank: 4, alpha: 12, dropout: 0.1 };
    insert(model, { method: 'lora', config, targeting: { targets: 'all-linear' }, seed: 3 });
    const made = emitStep(model, { loss, clip: 1 });
    const sizes = new Map(
      [made.step!, made.eval]
        .flatMap(({ graph }) => symbolsOf(graph))
        .map((symbol, i) => [symbol, 2 + 4 * i]),
    );
    const { step, eval: evaluation } = lowerStep(made, webgpu.needs!, sizes);
    for (const graph of [step!, evaluation]) {
      const { session } = await loadSession(host, graph, { ep: 'webgpu', threads: 1, cpuFallback: false });
      await session.release();
    }
  });
});
