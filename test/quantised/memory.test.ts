/** What ONNX Runtime makes of a training graph over quantised weights: no float copy of them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { payloadOf } from '../../passes/sites/index.js';
import { emitStep } from '../../passes/targets/step.js';
import { quantize } from '../../runtime/quantize/quantize.js';
import { type Graph, walkGraphs } from '../../src/graph.js';
import { readModel } from '../../src/onnx/index.js';
import { isFloat } from '../../src/types.js';
import { fixturePath } from '../helpers/fixtures.js';
import { sessionOf } from '../helpers/run.js';
import { withLora } from './fixtures.js';

/** Bytes of float tensors, and of all others of more than a few elements. */
function bytesOf(graph: Graph): { floats: number; integers: number } {
  const sum = { floats: 0, integers: 0 };
  for (const inner of walkGraphs(graph))
    for (const value of inner.initializers) {
      const tensor = payloadOf(value);
      if (tensor === undefined || tensor.data.byteLength < 256) continue;
      sum[isFloat(tensor.dtype) ? 'floats' : 'integers'] += tensor.data.byteLength;
    }
  return sum;
}

it.each(['int4', 'int8', 'nf4', 'int8-qdq'] as const)('%s stays as it is stored', async (format) => {
  const folder = mkdtempSync(join(tmpdir(), 'quantised-memory-'));
  try {
    const out = join(folder, 'base.onnx');
    await quantize({ model: fixturePath('models', 'llama.ts.dynamic.onnx'), out, format, blockSize: 16 });
    const { step } = emitStep(withLora(readModel(out)), { loss: 'causal-lm' });
    if (step === undefined) throw new Error('no step graph');
    const before = bytesOf(step.graph);
    expect(before.integers).toBeGreaterThan(5000);
    const optimised = join(folder, 'optimised.onnx');
    const session = await sessionOf(step, {
      graphOptimizationLevel: 'all',
      optimizedModelFilePath: optimised,
    });
    await session.release();
    const after = bytesOf(readModel(optimised).graph);
    // Scales may be kept once more per weight; a float copy would be eight times the codes.
    expect(after.floats - before.floats).toBeLessThan(0.5 * before.integers);
    expect(after.integers).toBeLessThan(1.5 * before.integers);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
