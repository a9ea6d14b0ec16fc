/** Evaluation on WebGPU against the CPU, nothing left to the CPU. */
import { datasetOf, evaluate } from 'peft-compile';
import { describe, expect, it } from 'vitest';
import { modelFixture } from '../helpers/fixtures.js';
import { peftFolder } from '../peft/folders.js';
import { whyNoGpu } from './software-gpu.js';

const missing = whyNoGpu();

describe.skipIf(missing !== undefined)('evaluation on WebGPU', () => {
  it('measures a base and an adapter beside it as the CPU does, an incomplete batch included', async () => {
    const rows = [3, 6, 5].map((length, i) => Array.from({ length }, (_, t) => 3 + ((7 * i + 5 * t) % 28)));
    const options = {
      model: modelFixture('llama.ts.dynamic').path,
      adapters: [peftFolder('llama-dora')],
      data: datasetOf(rows.map((ids) => ({ input_ids: ids, labels: ids }))),
      loss: 'causal-lm',
      batchSize: 2,
    } as const;
    const cpu = await evaluate({ ...options, session: { threads: 1 } });
    const gpu = await evaluate({ ...options, session: { threads: 1, ep: 'webgpu', cpuFallback: false } });
    expect(gpu.models).toHaveLength(2);
    for (const [i, { loss, weight, examples, metrics }] of cpu.models.entries()) {
      const row = gpu.models[i]!;
      expect(Math.abs(row.loss - loss)).toBeLessThan(1e-4);
      expect([row.weight, row.examples]).toEqual([weight, examples]);
      expect(row.metrics.correct).toBeCloseTo(metrics.correct!, 6);
    }
  });
});
