/** Additive methods in every form train in half precision: the loss falls and every parameter moves. */
import { expect, it } from 'vitest';
import { emitStep } from '../../passes/targets/step.js';
import { insert } from '../../runtime/library/insert.js';
import { readModel } from '../../src/onnx/index.js';
import { modelFixture } from '../helpers/fixtures.js';
import { numbers } from '../helpers/run.js';
import { Driver, int64 } from '../targets/driver.js';

const STEPS = 4;

type Case = readonly [method: string, config: Record<string, unknown>, targets?: string];

const CASES: readonly Case[] = [
  ['houlsby', { size: 4, gating: true }],
  ['pfeiffer', { size: 8, activation: 'gelu_new', init: 'bert' }],
  ['parallel', { size: 4, scaling: 'learned', dropout: 0.1 }, 'all'],
  ['compacter', { size: 8, gating: true }],
  ['compacter', { size: 8, divisor: 2, factorized: false, shareRule: false, init: 'glorot' }],
  ['prefix', { length: 3, gating: true }],
  ['prefix', { length: 3, projection: true, hidden: 5 }],
  ['prompt', { length: 3, init: 'vocabulary' }],
  ['p-tuning', { length: 3, hidden: 8 }],
  ['p-tuning', { length: 3, hidden: 8, encoder: 'lstm' }],
  ['p-tuning', { length: 1, hidden: 8, encoder: 'lstm' }],
  ['lora', { rank: 2, gating: true }, 'role:query'],
];

/** Whole numbers that look like text. */
const tokens = int64(
  Array.from({ length: 48 }, (_, i) => (i * 7) % 60),
  [4, 12],
);

it.each(CASES.map((row) => [`${row[0]} ${JSON.stringify(row[1])}`, row] as const))('%s', async (_, row) => {
  const [method, config, targets] = row;
  const model = readModel(modelFixture('llama.dynamo.fp16').path);
  await insert(model, {
    method,
    config,
    ...(targets === undefined ? {} : { targeting: { targets } }),
  });
  const artifacts = emitStep(model, { loss: 'causal-lm' });
  const { params, batch: inputs } = artifacts.manifest;
  const ones = int64(new Array<number>(48).fill(1), [4, 12]);
  const batch = Object.fromEntries(
    inputs.map(({ name }) => [name, name === 'attention_mask' ? ones : tokens]),
  );
  const driver = await Driver.open(model, artifacts);
  try {
    const before = new Map([...driver.carried].map(([name, tensor]) => [name, numbers(tensor)]));
    const losses: number[] = [];
    for (let step = 0; step < STEPS; step++)
      losses.push(numbers((await driver.step(batch, 1e-2)).loss)[0] as number);
    expect(losses.at(-1)).toBeLessThan(losses[0] as number);
    const still = params.filter(({ input }) =>
      numbers(driver.carried.get(input)).every((value, i) => value === before.get(input)?.[i]),
    );
    expect(still.map(({ key }) => key)).toEqual([]);
  } finally {
    await driver.close();
  }
});

it('a prefix behind its MLP loads in half precision', async () => {
  // ONNX Runtime 1.30 ends the process over keys of float16 that two Transposes in a row turn around.
  const model = readModel(modelFixture('bert.ts.fp16').path);
  await insert(model, { method: 'prefix', config: { length: 3, projection: true } });
  const driver = await Driver.open(model, emitStep(model, { loss: 'classification' }));
  await driver.close();
});
