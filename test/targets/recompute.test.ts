/** Activations computed twice: the same numbers from less memory. */
import { describe, expect, it } from 'vitest';
import { planMemory } from '../../passes/memory/plan.js';
import { groupSegments } from '../../passes/recompute/grouping.js';
import { emitStep } from '../../passes/targets/step.js';
import { insert } from '../../src/index.js';
import { readModel } from '../../src/onnx/index.js';
import { parseModel } from '../../src/text/index.js';
import { modelFixture } from '../helpers/fixtures.js';
import { numbers } from '../helpers/run.js';
import { Driver, int64 } from './driver.js';

const ROWS = 3;
const COLUMNS = 9;
const MODELS = ['bert.ts.dynamic', 'gpt2.dynamo.dynamic', 'llama.ts.dynamic', 'distilbert.dynamo.dynamic'];

const batchOf = (names: readonly string[], classes: number) =>
  Object.fromEntries(
    names.map((name, k) => [
      name,
      name.endsWith('mask')
        ? int64(new Array(ROWS * COLUMNS).fill(1), [ROWS, COLUMNS])
        : classes > 0 && !name.startsWith('input') && !name.startsWith('token')
          ? int64([0, 2, 1])
          : int64(
              Array.from({ length: ROWS * COLUMNS }, (_, i) =>
                name.startsWith('token') ? i % 2 : 2 + ((7 * i + k) % 50),
              ),
              [ROWS, COLUMNS],
            ),
    ]),
  );

async function adapted(name: string, dropout: number) {
  const { path, task } = modelFixture(name);
  const model = readModel(path);
  await insert(model, {
    method: 'lora',
    targeting: { targets: 'all-linear' },
    config: { rank: 3, alpha: 5, dropout },
    seed: 4,
  });
  return { model, loss: task === 'classification' ? 'classification' : 'causal-lm' } as const;
}

async function losses(name: string, recompute: boolean | number, dropout: number): Promise<number[]> {
  const { model, loss } = await adapted(name, dropout);
  const emitted = emitStep(model, { loss, clip: 1, recompute });
  const driver = await Driver.open(model, emitted);
  const batch = batchOf(
    emitted.manifest.batch.map(({ name: input }) => input),
    loss === 'classification' ? 3 : 0,
  );
  const found: number[] = [];
  for (let i = 0; i < 4; i++)
    found.push(...numbers((await driver.step(batch, 0.02))[emitted.manifest.outputs.loss]));
  return found;
}

describe('recompute', () => {
  it.each(MODELS.flatMap((name) => [0, 0.2].map((dropout) => ({ name, dropout }))))(
    '$name trains to the same numbers with dropout $dropout',
    async ({ name, dropout }) => {
      const kept = await losses(name, false, dropout);
      const again = await losses(name, true, dropout);
      expect(Math.abs(kept[3]! - kept[0]!)).toBeGreaterThan(1e-3);
      // The same operators on the same numbers; ONNX Runtime may fuse them otherwise.
      for (const [i, loss] of again.entries())
        expect(Math.abs(loss - kept[i]!)).toBeLessThan(1e-5 * Math.abs(kept[i]!));
    },
  );

  it.each(MODELS)('%s holds fewer activations, the fewer the more groups', async (name) => {
    const { model, loss } = await adapted(name, 0.1);
    const sizes = new Map([
      ['batch', 8],
      ['sequence', 16],
    ]);
    const activations = [false, 2, true].map(
      (recompute) => planMemory(emitStep(model, { loss, recompute }).step!, { sizes }).activations,
    );
    expect(activations[1]).toBeLessThan(activations[0]!);
    expect(activations[2]).toBeLessThan(activations[1]!);
  });

  it('is the graph without it in one group', async () => {
    const { model, loss } = await adapted('bert.ts.dynamic', 0);
    const nodes = (recompute: boolean | number) => emitStep(model, { loss, recompute }).step!.graph.nodeCount;
    expect(nodes(1)).toBe(nodes(false));
    expect(() => nodes(0)).toThrow(expect.objectContaining({ code: 'E_USAGE' }));
  });
});

it('draws random numbers once', async () => {
  const layers = Array.from({ length: 6 }, (_, i) => i);
  const weight = (layer: number) =>
    Array.from({ length: 64 * 64 }, (_, i) => (Math.sin(0.37 * i + layer) / 8).toFixed(4)).join(', ');
  const model = parseModel(`<ir_version: 8, opset_import: ["": 17]>
noisy (float[n, 32, 64] h0) => (float[n, 32, 64] h6)
<${layers.map((i) => `float[64, 64] w${i} = {${weight(i)}}`).join(', ')}>
{${layers
    .map(
      (i) => `m${i} = MatMul(h${i}, w${i})
  r${i} = RandomNormalLike(h0)
  s${i} = Tanh(m${i})
  t${i} = Mul(s${i}, r${i})
  h${i + 1} = Add(h${i}, t${i})`,
    )
    .join('\n')}}`);
  await insert(model, { method: 'lora', targeting: { targets: 'all' }, config: { rank: 2 }, seed: 4 });
  const { step } = emitStep(model, { loss: 'mse', recompute: 3 });
  const nodes = [...(step?.graph.nodes() ?? [])];
  expect(nodes.filter(({ op }) => op === 'RandomNormalLike')).toHaveLength(6);
  expect(nodes.filter(({ provenance }) => provenance === 'recompute').length).toBeGreaterThan(4);
});

describe('groups of segments', () => {
  const equal = (count: number) => Array.from({ length: count }, () => ({ entry: 1, inside: 1 }));

  it('are about the square root of their number for equal segments', () => {
    expect(groupSegments(equal(100)).length).toBeGreaterThanOrEqual(8);
    expect(groupSegments(equal(100)).length).toBeLessThanOrEqual(13);
  });

  it('are no more than asked for, and even', () => {
    for (const count of [1, 2, 3, 7, 40]) {
      const starts = groupSegments(equal(100), count);
      expect(starts.length).toBeLessThanOrEqual(count);
      expect(starts[0]).toBe(0);
      const sizes = starts.map((start, i) => (starts[i + 1] ?? 100) - start);
      expect(Math.max(...sizes)).toBeLessThanOrEqual(Math.ceil((100 / count) * 1.3));
    }
  });

  it('take segments of no size, and none', () => {
    expect(groupSegments([])).toEqual([0]);
    expect(
      groupSegments([
        { entry: 0, inside: 0 },
        { entry: 0, inside: 0 },
      ]),
    ).toEqual([0]);
  });
});
